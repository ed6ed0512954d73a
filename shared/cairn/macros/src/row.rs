//! The derive of rows.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Path, Result, ext::IdentExt};

use crate::stored;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    stored::require_concrete(input)?;
    let Model { name, table } = model(input)?;
    let attributes = attributes(input)?;
    let key = key(&input.ident, &attributes)?;
    let gates: Vec<_> = attributes.iter().filter_map(Attr::gate).collect();
    if gates.is_empty() {
        let message =
            "a row needs a field with `#[row(gate = ..)]` for each stream that changes it";
        return Err(Error::new_spanned(&input.ident, message));
    }
    let gate_names = gates.iter().map(|(gate, _)| gate);
    let aggregates: Vec<_> = gates.iter().map(|(_, aggregate)| aggregate).collect();
    let categories: Vec<_> = aggregates
        .iter()
        .map(|aggregate| quote! { <#aggregate as ::cairn::Aggregate>::CATEGORY })
        .collect();

    let fields = attributes.iter().map(Attr::stored);
    let stored = stored::impls(input, &quote! { struct Stored { #(#fields,)* } });
    let paths = attributes.iter().filter_map(Attr::path);
    let row = &input.ident;
    Ok(quote! {
        #stored

        impl #row { #(#paths)* }

        impl ::cairn::read_model::ReadModel for #row {
            const NAME: &'static str = #name;
            const TABLE: &'static str = #table;
            const KEY: &'static str = #key;

            fn row_key(
                stream: &::cairn::StreamId,
            ) -> ::core::option::Option<::cairn::read_model::RowKey<'_>> {
                let (category, key) = (stream.category(), stream.key());
                #(if category == #categories {
                    let gate = #gate_names;
                    return ::core::option::Option::Some(::cairn::read_model::RowKey { key, gate });
                })*
                ::core::option::Option::None
            }

            fn streams(key: &str) -> ::std::vec::Vec<::cairn::StreamId> {
                [#(#categories),*]
                    .into_iter()
                    .filter_map(|category| ::cairn::StreamId::new(category, key).ok())
                    .collect()
            }

            fn changes(
                event: &::cairn::RecordedEvent,
            ) -> ::core::result::Result<
                ::std::vec::Vec<::cairn::read_model::Change>,
                ::cairn::event::CodecError,
            > {
                let category = event.stream.category();
                #(if category == #categories {
                    return ::cairn::read_model::project::<Self, #aggregates>(event);
                })*
                ::core::result::Result::Ok(::std::vec::Vec::new())
            }
        }

        impl ::core::convert::TryFrom<::cairn::read_model::Row> for #row {
            type Error = ::cairn::__private::serde_json::Error;

            fn try_from(
                row: ::cairn::read_model::Row,
            ) -> ::core::result::Result<Self, Self::Error> {
                ::cairn::__private::serde_json::from_value(row.into())
            }
        }
    })
}

/// The attribute of the struct.
struct Model {
    name: LitStr,
    table: LitStr,
}

fn model(input: &DeriveInput) -> Result<Model> {
    let (mut name, mut table) = (None, None);
    for attribute in stored::named(&input.attrs, "row") {
        attribute.parse_nested_meta(|meta| {
            let value = if meta.path.is_ident("name") {
                &mut name
            } else if meta.path.is_ident("table") {
                &mut table
            } else {
                return Err(meta.error("the attributes of a row are `name` and `table`"));
            };
            *value = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    let (Some(name), Some(table)) = (name, table) else {
        let message = "a row needs `#[row(name = \"..\", table = \"..\")]`: the name of the read \
                       model, and the environment variable with the name of its table";
        return Err(Error::new_spanned(&input.ident, message));
    };
    Ok(Model { name, table })
}

/// A field, the name of its attribute, and its part in the row.
struct Attr<'a> {
    field: &'a Field,
    ident: &'a Ident,
    name: LitStr,
    part: Part,
}

enum Part {
    Key(Span),
    Gate(Path),
    Value,
}

fn attributes(input: &DeriveInput) -> Result<Vec<Attr<'_>>> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Some(fields),
            Fields::Unnamed(_) | Fields::Unit => None,
        },
        Data::Enum(_) | Data::Union(_) => None,
    };
    let message = "a row is a struct with a field for each attribute";
    let fields = fields.ok_or_else(|| Error::new_spanned(&input.ident, message))?;
    fields.named.iter().filter_map(attribute).collect()
}

fn attribute(field: &Field) -> Option<Result<Attr<'_>>> {
    let ident = field.ident.as_ref()?;
    let mut name = LitStr::new(&camel_case(&ident.unraw().to_string()), ident.span());
    let mut part = Part::Value;
    let parsed = stored::named(&field.attrs, "row").try_for_each(|attribute| {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("key") {
                part = Part::Key(ident.span());
            } else if meta.path.is_ident("gate") {
                part = Part::Gate(meta.value()?.parse()?);
            } else if meta.path.is_ident("name") {
                name = meta.value()?.parse()?;
            } else {
                return Err(meta.error("the attributes of a field are `key`, `gate` and `name`"));
            }
            Ok(())
        })
    });
    Some(parsed.map(|()| Attr {
        field,
        ident,
        name,
        part,
    }))
}

/// Returns the name of the attribute that is the table's partition key.
fn key<'a>(row: &Ident, attributes: &'a [Attr<'_>]) -> Result<&'a LitStr> {
    let mut keys = attributes
        .iter()
        .filter_map(|attribute| match attribute.part {
            Part::Key(span) => Some((&attribute.name, span)),
            Part::Gate(_) | Part::Value => None,
        });
    let message = "a row needs a field with `#[row(key)]`, the partition key of its table";
    let first = keys
        .next()
        .ok_or_else(|| Error::new_spanned(row, message))?;
    match keys.next() {
        None => Ok(first.0),
        Some((_, span)) => Err(Error::new(span, "a row has one partition key")),
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + rest
    })
}

impl Attr<'_> {
    fn gate(&self) -> Option<(&LitStr, &Path)> {
        match &self.part {
            Part::Gate(aggregate) => Some((&self.name, aggregate)),
            Part::Key(_) | Part::Value => None,
        }
    }

    /// Returns the field of the stored form. A gate is 0 before the first event of its stream.
    fn stored(&self) -> TokenStream {
        let Self { ident, name, .. } = self;
        let (attributes, ty) = (stored::kept(&self.field.attrs), &self.field.ty);
        let default = self.gate().map(|_| quote! { #[serde(default)] });
        quote! { #(#attributes)* #default #[serde(rename = #name)] #ident: #ty }
    }

    /// Returns the function for the path of an attribute that events change.
    fn path(&self) -> Option<TokenStream> {
        match self.part {
            Part::Key(_) | Part::Gate(_) => return None,
            Part::Value => {}
        }
        let (ident, name, ty) = (self.ident, &self.name, &self.field.ty);
        Some(quote! {
            fn #ident() -> ::cairn::read_model::Path<#ty> {
                ::cairn::read_model::Path::new(#name)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_explained() {
        const MODEL: &str = "#[row(name = \"a\", table = \"A_TABLE\")]";
        for (input, message) in [
            (
                "struct Row { a: u64 }".to_owned(),
                "a row needs `#[row(name",
            ),
            (format!("{MODEL} enum Row {{}}"), "a row is a struct"),
            (format!("{MODEL} struct Row(u64);"), "a row is a struct"),
            (
                format!("{MODEL} struct Row {{ #[row(gate = A)] a: u64 }}"),
                "`#[row(key)]`",
            ),
            (
                format!("{MODEL} struct Row {{ #[row(key)] a: String }}"),
                "`#[row(gate = ..)]`",
            ),
            (
                format!("{MODEL} struct Row {{ #[row(key)] a: String, #[row(key)] b: String }}"),
                "a row has one partition key",
            ),
            (
                format!("{MODEL} struct Row {{ #[row(kye)] a: String }}"),
                "the attributes of a field are `key`, `gate` and `name`",
            ),
        ] {
            let error = derive(&syn::parse_str(&input).unwrap()).unwrap_err();
            assert!(error.to_string().contains(message), "{input}: {error}");
        }
    }

    #[test]
    fn attributes_are_in_camel_case() {
        let names = ["a", "on_hand", "line_1_text"].map(camel_case);
        assert_eq!(names, ["a", "onHand", "line1Text"]);
    }
}
