//! The derive of events.

use std::collections::HashSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, LitStr, Result, Token, Variant,
    ext::IdentExt,
    parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

use crate::stored;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    stored::require_concrete(input)?;
    let Data::Enum(data) = &input.data else {
        let message = "events are an enum with one variant for each event";
        return Err(Error::new_spanned(&input.ident, message));
    };
    let prefix = prefix(&input.attrs)?;
    let events = data.variants.iter().map(|variant| event(&prefix, variant));
    let events = events.collect::<Result<Vec<_>>>()?;
    let mut names = HashSet::new();
    for event in &events {
        if !names.insert(event.name.value()) {
            let message = format!("two events have the stored name `{}`", event.name.value());
            return Err(Error::new(event.name.span(), message));
        }
    }

    let variants = events.iter().map(Event::stored);
    let copy = quote! {
        #[serde(tag = "type", content = "data", rename_all_fields = "camelCase")]
        enum Stored { #(#variants,)* }
    };
    let (stored, name) = (stored::impls(input, &copy), &input.ident);
    let upcasters = events.iter().flat_map(Event::upcasters);
    let read_only = events.iter().filter_map(Event::read_only);
    Ok(quote! {
        #stored

        impl ::cairn::event::Event for #name {
            const UPCASTERS: &'static [::cairn::event::Upcaster] = &[#(#upcasters),*];
            const READ_ONLY: &'static [::cairn::event::ReadOnly] = &[#(#read_only),*];
        }
    })
}

fn prefix(attributes: &[Attribute]) -> Result<String> {
    let mut prefix = String::new();
    for attribute in stored::named(attributes, "event") {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("prefix") {
                return Err(meta.error("the attribute of an event type is `prefix`"));
            }
            prefix = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(prefix)
}

/// One variant, and its attributes.
struct Event<'a> {
    variant: &'a Variant,
    name: LitStr,
    upcasters: Vec<Lift>,
    read_only: Option<ReadOnly>,
}

/// An upcaster; `None` if the next version accepts the data.
struct Lift(Option<TokenStream>);

impl Parse for Lift {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(Token![_]) {
            input.parse::<Token![_]>()?;
            return Ok(Self(None));
        }
        function(input).map(|lift| Self(Some(lift)))
    }
}

enum ReadOnly {
    Type,
    Version(TokenStream),
}

/// Parses the path of a function, or a closure.
fn function(input: ParseStream<'_>) -> Result<TokenStream> {
    let mut tokens = vec![];
    while !input.is_empty() && !input.peek(Token![,]) {
        tokens.push(input.parse::<TokenTree>()?);
    }
    if tokens.is_empty() {
        return Err(input.error("a function from JSON to JSON is missing"));
    }
    Ok(tokens.into_iter().collect())
}

fn event<'a>(prefix: &str, variant: &'a Variant) -> Result<Event<'a>> {
    check_fields(variant)?;
    let (ident, span) = (variant.ident.unraw(), variant.ident.span());
    let mut event = Event {
        variant,
        name: LitStr::new(&format!("{prefix}{ident}"), span),
        upcasters: vec![],
        read_only: None,
    };
    for attribute in stored::named(&variant.attrs, "event") {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                event.name = meta.value()?.parse()?;
            } else if meta.path.is_ident("upcasters") {
                let lifts;
                parenthesized!(lifts in meta.input);
                let lifts = Punctuated::<Lift, Token![,]>::parse_terminated(&lifts)?;
                event.upcasters = lifts.into_iter().collect();
            } else if meta.path.is_ident("read_only") {
                event.read_only = Some(if meta.input.peek(Token![=]) {
                    ReadOnly::Version(function(meta.value()?)?)
                } else {
                    ReadOnly::Type
                });
            } else {
                let message = "the attributes of an event are `name`, `upcasters` and `read_only`";
                return Err(meta.error(message));
            }
            Ok(())
        })?;
    }
    if let (Some(ReadOnly::Version(lower)), []) = (&event.read_only, event.upcasters.as_slice()) {
        let message = "the event has one version; an earlier one to write needs an upcaster";
        return Err(Error::new_spanned(lower, message));
    }
    Ok(event)
}

/// Accepts the variants whose data is a JSON object.
fn check_fields(variant: &Variant) -> Result<()> {
    let message = match &variant.fields {
        Fields::Named(_) => return Ok(()),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => return Ok(()),
        Fields::Unnamed(_) => "the data of an event is a JSON object; name the fields".to_owned(),
        Fields::Unit => {
            let ident = &variant.ident;
            format!("the data of an event is a JSON object; write `{ident} {{}}`")
        }
    };
    Err(Error::new_spanned(variant, message))
}

impl Event<'_> {
    fn stored(&self) -> TokenStream {
        let (ident, name) = (&self.variant.ident, &self.name);
        let attributes = stored::kept(&self.variant.attrs);
        let fields = stored::fields(&self.variant.fields);
        quote! { #(#attributes)* #[serde(rename = #name)] #ident #fields }
    }

    fn upcasters(&self) -> impl Iterator<Item = TokenStream> + '_ {
        let name = &self.name;
        (1_u32..)
            .zip(&self.upcasters)
            .map(move |(from, Lift(lift))| {
                let lift = lift.as_ref().map_or_else(
                    || quote! { ::core::option::Option::None },
                    |lift| quote! { ::core::option::Option::Some(#lift) },
                );
                quote! { ::cairn::event::Upcaster { name: #name, from: #from, lift: #lift } }
            })
    }

    fn read_only(&self) -> Option<TokenStream> {
        let name = &self.name;
        Some(match self.read_only.as_ref()? {
            ReadOnly::Type => quote! { ::cairn::event::ReadOnly::Type { name: #name } },
            ReadOnly::Version(lower) => {
                quote! { ::cairn::event::ReadOnly::Version { name: #name, lower: #lower } }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_explained() {
        for (input, message) in [
            ("struct Event;", "events are an enum"),
            (
                "enum Event<T> { Placed { by: T } }",
                "the type has parameters",
            ),
            ("enum Event { Placed }", "write `Placed {}`"),
            ("enum Event { Placed(u64, u64) }", "name the fields"),
            (
                "enum Event { A {}, #[event(name = \"A\")] B {} }",
                "two events have the stored name `A`",
            ),
            (
                "#[event(prefxi = \"A\")] enum Event { A {} }",
                "the attribute of an event type is `prefix`",
            ),
            (
                "enum Event { #[event(rename = \"A\")] A {} }",
                "the attributes of an event are `name`, `upcasters` and `read_only`",
            ),
            (
                "enum Event { #[event(upcasters(,))] A {} }",
                "a function from JSON to JSON is missing",
            ),
            (
                "enum Event { #[event(read_only = lower)] A {} }",
                "needs an upcaster",
            ),
        ] {
            let error = derive(&syn::parse_str(input).unwrap()).unwrap_err();
            assert!(error.to_string().contains(message), "{input}: {error}");
        }
    }
}
