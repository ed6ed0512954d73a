//! The derive of the steps of a saga.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Ident, LitStr, Result, Variant, ext::IdentExt};

use crate::stored;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    stored::require_concrete(input)?;
    let Data::Enum(data) = &input.data else {
        let message = "the steps of a saga are an enum with one variant for each step";
        return Err(Error::new_spanned(&input.ident, message));
    };
    let steps = data.variants.iter().map(step);
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let Some(first) = steps.first() else {
        return Err(Error::new_spanned(&input.ident, "a saga has a step"));
    };
    if first.is_read_only {
        let message = "the function of the first step starts the saga, so it cannot be read only";
        return Err(Error::new_spanned(first.ident, message));
    }
    let mut names = HashSet::new();
    for step in &steps {
        if !names.insert(step.name.value()) {
            let message = format!("two steps have the stored name `{}`", step.name.value());
            return Err(Error::new(step.name.span(), message));
        }
    }

    let variants = steps.iter().map(Step::stored);
    let stored = stored::impls(input, &quote! { enum Stored { #(#variants,)* } });
    let name = &input.ident;
    let due = steps.iter().filter(|step| !step.is_read_only);
    let due = due.map(|step| step.ident);
    let read_only = (1..).zip(&steps).filter(|(_, step)| step.is_read_only);
    let read_only = read_only.map(|(next, step)| {
        let mut rest = steps.iter().skip(next);
        let next = rest.find(|step| !step.is_read_only).map_or_else(
            || quote! { ::core::option::Option::None },
            |Step { ident, .. }| quote! { ::core::option::Option::Some(Self::#ident) },
        );
        let ident = step.ident;
        quote! { (Self::#ident, #next) }
    });
    let names = steps
        .iter()
        .map(|Step { ident, name, .. }| quote! { Self::#ident => #name });
    let compensated = steps.iter().map(|step| {
        let (ident, needs) = (step.ident, step.needs_compensation);
        quote! { Self::#ident => #needs }
    });
    Ok(quote! {
        #stored

        impl ::cairn::saga::Step for #name {
            const STEPS: &'static [Self] = &[#(Self::#due),*];
            const READ_ONLY_STEPS: &'static [(Self, ::core::option::Option<Self>)] =
                &[#(#read_only),*];

            fn name(self) -> &'static str {
                match self { #(#names,)* }
            }

            fn needs_compensation(self) -> bool {
                match self { #(#compensated,)* }
            }
        }
    })
}

/// One variant, and its attributes.
struct Step<'a> {
    variant: &'a Variant,
    ident: &'a Ident,
    name: LitStr,
    is_read_only: bool,
    needs_compensation: bool,
}

fn step(variant: &Variant) -> Result<Step<'_>> {
    if !variant.fields.is_empty() {
        let message = "a step has no data; the data of all steps is the input of the saga";
        return Err(Error::new_spanned(variant, message));
    }
    let ident = &variant.ident;
    let mut step = Step {
        variant,
        ident,
        name: LitStr::new(&kebab(&ident.unraw().to_string()), ident.span()),
        is_read_only: false,
        needs_compensation: true,
    };
    for attribute in stored::named(&variant.attrs, "step") {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                step.name = meta.value()?.parse()?;
            } else if meta.path.is_ident("read_only") {
                step.is_read_only = true;
            } else if meta.path.is_ident("no_compensation") {
                step.needs_compensation = false;
            } else {
                let message =
                    "the attributes of a step are `name`, `read_only` and `no_compensation`";
                return Err(meta.error(message));
            }
            Ok(())
        })?;
    }
    Ok(step)
}

/// Returns `ShipOrder` as `ship-order`.
fn kebab(pascal: &str) -> String {
    let mut kebab = String::new();
    for letter in pascal.chars() {
        if letter.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

impl Step<'_> {
    fn stored(&self) -> TokenStream {
        let (ident, name) = (self.ident, &self.name);
        let attributes = stored::kept(&self.variant.attrs);
        quote! { #(#attributes)* #[serde(rename = #name)] #ident }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_explained() {
        for (input, message) in [
            ("struct Step;", "the steps of a saga are an enum"),
            ("enum Step {}", "a saga has a step"),
            ("enum Step { Ship(u64) }", "a step has no data"),
            (
                "enum Step { #[step(read_only)] Pack, Ship }",
                "the function of the first step starts the saga",
            ),
            (
                "enum Step { Ship, #[step(name = \"ship\")] Send }",
                "two steps have the stored name `ship`",
            ),
            (
                "enum Step { #[step(readonly)] Ship }",
                "the attributes of a step are",
            ),
        ] {
            let error = derive(&syn::parse_str(input).unwrap()).unwrap_err();
            assert!(error.to_string().contains(message), "{input}: {error}");
        }
    }
}
