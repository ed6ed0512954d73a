//! `#[derive(Input)]`: reads a struct from a part of a request body.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result, parse_quote};

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
                ::cairn::input::object([
                    #((
                        #names,
                        <#types as ::cairn::input::Input>::REQUIRED,
                        <#types as ::cairn::input::Input>::schema(),
                    )),*
                ])
            }
        }
    })
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
