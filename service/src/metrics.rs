//! Numbers for Prometheus: a registry that puts a prefix before every name.
//!
//! Each component keeps a small struct of its own numbers and is handed the registry to register
//! them in. Names end in their unit; a digest, a path or a device is never a label.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{Encoder as _, HistogramOpts, Opts, TextEncoder};
pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use thiserror::Error;

/// Why a number cannot be registered or shown: a name that is taken or malformed.
#[derive(Debug, Error)]
#[error("cannot register the metric {name}")]
pub struct MetricsError {
    name: String,
    source: prometheus::Error,
}

/// Where numbers are registered. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: prometheus::Registry,
    names: Arc<Mutex<Vec<String>>>,
    prefix: String,
}

impl Registry {
    /// An empty one whose names all begin with `prefix` and `_`, such as `larder_origin`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            inner: prometheus::Registry::new(),
            names: Arc::default(),
            prefix: prefix.to_owned(),
        }
    }

    /// The same registry with `part` added to the prefix.
    #[must_use]
    pub fn sub(&self, part: &str) -> Self {
        Self {
            inner: self.inner.clone(),
            names: Arc::clone(&self.names),
            prefix: format!("{}_{part}", self.prefix),
        }
    }

    /// A number that only rises. Its name should end in `_total`.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken or malformed, as the other constructors here do.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(name, IntCounter::with_opts(self.opts(name, help)))
    }

    /// Numbers that only rise, one for each value of `labels`.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken or malformed.
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(name, IntCounterVec::new(self.opts(name, help), labels))
    }

    /// A number that rises and falls.
    ///
    /// # Errors
    ///
    /// Fails if the name is taken or malformed.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(name, IntGauge::with_opts(self.opts(name, help)))
    }

    /// Numbers that rise and fall, one for each value of `labels`.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken or malformed.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        self.register(name, IntGaugeVec::new(self.opts(name, help), labels))
    }

    /// How a quantity is spread over `buckets` (upper bounds, rising), for each value of `labels`.
    ///
    /// # Errors
    ///
    /// Fails if a name is taken or malformed.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, MetricsError> {
        let opts = HistogramOpts::new(self.full(name), help).buckets(buckets.to_vec());
        self.register(name, HistogramVec::new(opts, labels))
    }

    /// Everything, in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    ///
    /// Fails if a family cannot be written down.
    pub fn page(&self) -> Result<String, MetricsError> {
        let mut page = Vec::new();
        let encoded = TextEncoder::new().encode(&self.inner.gather(), &mut page);
        encoded.map_err(|source| MetricsError {
            name: self.prefix.clone(),
            source,
        })?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// Names of all numbers, in the order in which they were registered. The page leaves those out
    /// that have labels and no value yet.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.clone()
    }

    fn full(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(self.full(name), help)
    }

    fn register<C: Clone + Collector + 'static>(
        &self,
        name: &str,
        made: prometheus::Result<C>,
    ) -> Result<C, MetricsError> {
        let fail = |source| MetricsError {
            name: self.full(name),
            source,
        };
        let made = made.map_err(fail)?;
        self.inner.register(Box::new(made.clone())).map_err(fail)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(self.full(name));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn names_carry_the_prefix_and_a_name_is_taken_once() {
        let registry = Registry::new("larder_test");
        registry
            .sub("cache")
            .counter("hits_total", "Requests answered here.")
            .unwrap()
            .inc();
        expect![[r#"
            # HELP larder_test_cache_hits_total Requests answered here.
            # TYPE larder_test_cache_hits_total counter
            larder_test_cache_hits_total 1
        "#]]
        .assert_eq(&registry.page().unwrap());
        let again = registry.counter("cache_hits_total", "Again.").unwrap_err();
        assert_eq!(
            again.to_string(),
            "cannot register the metric larder_test_cache_hits_total"
        );
    }

    #[test]
    fn numbers_without_a_value_yet_are_named_too() {
        let registry = Registry::new("larder_test");
        registry
            .sub("cache")
            .counters("hits_total", "Hits.", &["tier"])
            .unwrap();
        registry.gauge("stored_bytes", "Stored.").unwrap();
        let names = ["larder_test_cache_hits_total", "larder_test_stored_bytes"];
        assert_eq!(registry.names(), names);
        assert!(!registry.page().unwrap().contains("hits_total"));
    }
}
