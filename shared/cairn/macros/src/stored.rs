//! The stored form of a type: its serialization and its JSON Schema.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, DeriveInput, Error, Field, Fields, Result, Visibility};

/// Returns serde's traits and `JsonSchema` for a type, derived from `copy`, a type named `Stored`
/// that has the same fields and the attributes of the stored form.
pub(crate) fn impls(input: &DeriveInput, copy: &TokenStream) -> TokenStream {
    let (name, remote) = (&input.ident, input.ident.to_string());
    let attributes = kept(&input.attrs);
    quote! {
        const _: () = {
            #[derive(
                ::cairn::__private::serde::Serialize,
                ::cairn::__private::serde::Deserialize,
                ::cairn::__private::schemars::JsonSchema,
            )]
            #[serde(crate = "::cairn::__private::serde", remote = #remote)]
            #[schemars(crate = "::cairn::__private::schemars")]
            #(#attributes)*
            #copy

            impl ::cairn::__private::serde::Serialize for #name {
                fn serialize<S: ::cairn::__private::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    Stored::serialize(self, serializer)
                }
            }

            impl<'de> ::cairn::__private::serde::Deserialize<'de> for #name {
                fn deserialize<D: ::cairn::__private::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    Stored::deserialize(deserializer)
                }
            }

            impl ::cairn::__private::schemars::JsonSchema for #name {
                fn schema_name() -> ::std::borrow::Cow<'static, str> {
                    <Stored as ::cairn::__private::schemars::JsonSchema>::schema_name()
                }

                fn schema_id() -> ::std::borrow::Cow<'static, str> {
                    <Stored as ::cairn::__private::schemars::JsonSchema>::schema_id()
                }

                fn json_schema(
                    generator: &mut ::cairn::__private::schemars::SchemaGenerator,
                ) -> ::cairn::__private::schemars::Schema {
                    <Stored as ::cairn::__private::schemars::JsonSchema>::json_schema(generator)
                }
            }
        };
    }
}

/// Returns the attributes with a name.
pub(crate) fn named<'a>(
    attributes: &'a [Attribute],
    name: &'static str,
) -> impl Iterator<Item = &'a Attribute> {
    let attributes = attributes.iter();
    attributes.filter(move |attribute| attribute.path().is_ident(name))
}

/// Returns the attributes that the stored form has too.
pub(crate) fn kept(attributes: &[Attribute]) -> Vec<&Attribute> {
    let names = ["doc", "cfg", "serde", "schemars"];
    let kept = |attribute: &&Attribute| names.iter().any(|name| attribute.path().is_ident(name));
    attributes.iter().filter(kept).collect()
}

/// Returns the fields of the stored form.
pub(crate) fn fields(fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    fields.iter_mut().for_each(strip);
    fields
}

fn strip(field: &mut Field) {
    field.attrs = kept(&field.attrs).into_iter().cloned().collect();
    field.vis = Visibility::Inherited;
}

/// Rejects a generic type.
pub(crate) fn require_concrete(input: &DeriveInput) -> Result<()> {
    if input.generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(
        &input.generics,
        "the type has parameters, so its stored form is not one; derive serde's traits and \
         implement the trait by hand",
    ))
}
