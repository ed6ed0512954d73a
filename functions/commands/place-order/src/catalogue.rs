//! The catalogue's prices, cached.
//!
//! A price from the cache or from a row can be outdated. The order's append therefore requires that
//! the product's stream still ends at the price's version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn::{
    Aggregate,
    read_model::LiveRows,
    repository::Repository,
    store::{EventStore, StoreError, StreamVersion},
};
use futures_util::future::try_join_all;
use orders::{
    prices::{PriceList, UnpricedLine},
    product::Product,
    read_models::products,
    values::{Money, Sku},
};

/// The catalogue.
pub(crate) struct Catalogue<S, R> {
    products: Repository<Product, S>,
    rows: R,
    remembered: Mutex<BTreeMap<Sku, Offer>>,
}

/// A price, and the version of the product's stream that set it.
#[derive(Clone, Copy)]
struct Offer {
    price: Money,
    version: u64,
}

/// The prices of those SKUs that have one.
#[derive(Default)]
pub(crate) struct Offers(BTreeMap<Sku, Offer>);

impl<S: EventStore + Clone, R: LiveRows> Catalogue<S, R> {
    /// The capacity of the cache; an entry has about 100 bytes.
    const REMEMBERED: usize = 10_000;

    pub(crate) fn new(products: Repository<Product, S>, rows: R) -> Self {
        Self {
            products,
            rows,
            remembered: Mutex::default(),
        }
    }

    /// Returns cached prices, and reads the rows of all other SKUs with one call.
    pub(crate) async fn known(&self, lines: &[UnpricedLine]) -> Result<Offers, StoreError> {
        let skus: BTreeSet<_> = lines.iter().map(|line| &line.sku).collect();
        let mut offers = Offers::default();
        let mut unknown = vec![];
        {
            let remembered = self.remembered();
            for sku in skus {
                match remembered.get(sku) {
                    Some(offer) => drop(offers.0.insert(sku.clone(), *offer)),
                    None => unknown.push(sku.to_string()),
                }
            }
        }
        let rows = self.rows.rows(&unknown).await?;
        for view in rows.into_values().filter_map(products::render) {
            let offer = Offer {
                price: view.price,
                version: view.version,
            };
            offers.0.insert(view.sku, offer);
        }
        self.remember(&offers);
        Ok(offers)
    }

    /// Returns the current prices with a strongly consistent read of each product's stream.
    pub(crate) async fn current(&self, lines: &[UnpricedLine]) -> Result<Offers, StoreError> {
        let skus: BTreeSet<_> = lines.iter().map(|line| &line.sku).collect();
        let reads = skus.into_iter().map(|sku| async move {
            let product = self.products.load(&Product::stream(sku)).await?;
            let offer = product.state.price().map(|price| Offer {
                price,
                version: product.version,
            });
            Ok::<_, StoreError>(offer.map(|offer| (sku.clone(), offer)))
        });
        let read = try_join_all(reads).await?;
        let offers = Offers(read.into_iter().flatten().collect());
        self.remember(&offers);
        Ok(offers)
    }

    /// A price never replaces a newer one.
    fn remember(&self, offers: &Offers) {
        let mut remembered = self.remembered();
        if remembered.len() + offers.0.len() > Self::REMEMBERED {
            remembered.clear();
        }
        for (sku, offer) in &offers.0 {
            let known = remembered.entry(sku.clone()).or_insert(*offer);
            if known.version < offer.version {
                *known = *offer;
            }
        }
    }

    fn remembered(&self) -> MutexGuard<'_, BTreeMap<Sku, Offer>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offers {
    pub(crate) fn prices(&self) -> PriceList {
        let offers = self.0.iter();
        offers
            .map(|(sku, offer)| (sku.clone(), offer.price))
            .collect()
    }

    /// Returns the products' streams with the versions that set the prices.
    pub(crate) fn versions(&self) -> Vec<StreamVersion> {
        let offers = self.0.iter();
        offers
            .map(|(sku, offer)| StreamVersion {
                stream: Product::stream(sku),
                version: offer.version,
            })
            .collect()
    }
}
