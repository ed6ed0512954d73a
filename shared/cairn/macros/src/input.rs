//! `#[derive(Input)]`: reads a struct from a part of a request body.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, Fields, Lit, LitStr, Meta, Result,
    parse_quote,
};

use crate::stored;

/// Implements `cairn::input::Input` for a struct with named members.
pub(crate) fn derive(mut input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "Input needs a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(
            &input.ident,
            "Input needs named members",
        ));
    };
    let count = fields.named.len();
    let members: Vec<_> = fields
        .named
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .collect();
    let names: Vec<_> = members
        .iter()
        .map(|member| camel_case(&member.to_string()))
        .collect();
    let types: Vec<_> = fields.named.iter().map(|field| field.ty.clone()).collect();
    let documented = fields.named.iter();
    let documented: Vec<_> = documented
        .map(|field| documentation(&field.attrs))
        .collect();
    let (title, document) = (name(&input)?, documentation(&input.attrs));
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::cairn::input::Input));
    }
    let (ident, (generics, arguments, bounds)) = (&input.ident, input.generics.split_for_impl());
    Ok(quote! {
        impl #generics ::cairn::input::Input for #ident #arguments #bounds {
            fn read(
                field: &::cairn::input::Field<'_>,
                errors: &mut ::cairn::input::ValidationErrors,
            ) -> ::core::option::Option<Self> {
                field.members(#count, errors)?;
                #(let #members = <#types as ::cairn::input::Input>::read(&field.get(#names), errors);)*
                ::core::option::Option::Some(Self { #(#members: #members?),* })
            }

            fn schema() -> ::cairn::input::Schema {
                let members = ::cairn::input::object([
                    #((
                        #names,
                        <#types as ::cairn::input::Input>::REQUIRED,
                        ::cairn::input::described(
                            <#types as ::cairn::input::Input>::schema(),
                            #documented,
                        ),
                    )),*
                ]);
                ::cairn::input::named(#title, #document, members)
            }
        }
    })
}

/// Returns the name of the schema: that of the type, unless `#[input(name = "..")]` has another.
fn name(input: &DeriveInput) -> Result<String> {
    let mut name = input.ident.to_string();
    for attribute in stored::named(&input.attrs, "input") {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("the attribute of an input is `name`"));
            }
            name = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(name)
}

/// Returns the text of the doc comment, without the space after each `///`.
fn documentation(attributes: &[Attribute]) -> String {
    let lines = stored::named(attributes, "doc").filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(doc) => match &doc.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(line),
                ..
            }) => Some(line.value()),
            _ => None,
        },
        Meta::Path(_) | Meta::List(_) => None,
    });
    let lines: Vec<_> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).to_owned())
        .collect();
    lines.join("\n")
}

/// Returns the JSON name of a member: `postalCode` for `postal_code`.
fn camel_case(name: &str) -> String {
    let name = name.strip_prefix("r#").unwrap_or(name);
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_uppercase() + rest
    })
}
