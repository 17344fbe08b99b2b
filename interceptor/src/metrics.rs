//! Every metric of Weir: name, help and labels, in a registry of our own.
//!
//! Labels are enums or names from the configuration: nothing that a client sends is a label.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::ledger::{Cost, Explained, LeaseCounts, Record};

/// Why a connection was not inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BypassReason {
    /// The server name is of no LLM provider.
    NotProvider,
    /// The configuration says to leave this host alone.
    Ignored,
    /// The client does not speak TLS.
    NotTls,
    /// The ClientHello names no server.
    NoServerName,
    /// The ClientHello is malformed, too long, or did not arrive in time.
    BrokenHello,
    /// The client waits for the server to speak first.
    SilentClient,
    /// The client takes no certificate of ECDSA with P-256, no suite that goes with it, or no TLS of
    /// this age.
    NoCommonTls,
    /// The client offers only application protocols that are not HTTP.
    UnreadableProtocol,
    /// The client refused our certificate: it does not trust the local CA, or pins another.
    ClientRejectsCa,
    /// The local CA may not sign for this host: `weir ca rotate`.
    CaDoesNotCover,
    /// The provider's certificate does not verify here; the client is left to judge it.
    UpstreamUntrusted,
    /// The provider asks for a client certificate, which only the client has.
    UpstreamWantsClientCertificate,
    /// No TLS handshake that we speak with the provider; the client may speak another.
    UpstreamHandshake,
}

impl BypassReason {
    /// The label of metrics, records and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotProvider => "not_provider",
            Self::Ignored => "ignored",
            Self::NotTls => "not_tls",
            Self::NoServerName => "no_server_name",
            Self::BrokenHello => "broken_hello",
            Self::SilentClient => "silent_client",
            Self::NoCommonTls => "no_common_tls",
            Self::UnreadableProtocol => "unreadable_protocol",
            Self::ClientRejectsCa => "client_rejects_ca",
            Self::CaDoesNotCover => "ca_does_not_cover",
            Self::UpstreamUntrusted => "upstream_untrusted",
            Self::UpstreamWantsClientCertificate => "upstream_wants_client_certificate",
            Self::UpstreamHandshake => "upstream_handshake",
        }
    }

    /// Whether the connection may have been an LLM call that went by unread.
    #[must_use]
    pub fn is_blind_spot(self) -> bool {
        !matches!(self, Self::NotProvider | Self::Ignored)
    }
}

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// A request body is longer than what is read.
    RequestBody,
    /// Request bodies held at once take all the memory that they may have.
    RequestBodies,
    /// An encoded body is longer, once decoded, than what is read.
    DecodedBody,
    /// Connections at once.
    Connections,
    /// Alerts that wait, or tries of one: it was not delivered.
    Alerts,
    /// Calls whose prompts wait to be looked at: one was not explained.
    Explanations,
    /// Conversations that wait to be told to other nodes: one is told when it changes again.
    Conversations,
    /// Accounts of a cap: calls of further callers count in one that they share.
    CapAccounts,
}

impl Bound {
    fn as_str(self) -> &'static str {
        match self {
            Self::RequestBody => "request_body",
            Self::RequestBodies => "request_bodies",
            Self::DecodedBody => "decoded_body",
            Self::Connections => "connections",
            Self::Alerts => "alerts",
            Self::Explanations => "explanations",
            Self::Conversations => "conversations",
            Self::CapAccounts => "cap_accounts",
        }
    }
}

/// The metrics of one Weir process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Exchanges, by `provider`, `api` and `outcome`.
    pub exchanges: IntCounterVec,
    /// Tokens, by `provider` and `kind` (input, cache_read, cache_write, output).
    pub tokens: IntCounterVec,
    /// Nano-dollars spent, by `provider`.
    pub spent: IntCounterVec,
    /// Calls whose model has no price, by `provider`.
    pub unpriced: IntCounterVec,
    cache: CacheMetrics,
    /// Calls with a prompt, by what was done to it.
    pub rewritten: IntCounterVec,
    /// Calls whose history was refused, by the form in which they were sent again.
    pub sent_again: IntCounterVec,
    /// Values of workloads, by what is done about them from then on.
    pub switched: IntCounterVec,
    /// Conversations looked up where other nodes tell of them, by what came of it.
    pub recalled: IntCounterVec,
    /// Calls refused, by `reason`.
    pub refused: IntCounterVec,
    /// What caps did besides refusing.
    pub caps: CapMetrics,
    /// Connections not inspected, by `reason`.
    pub bypassed: IntCounterVec,
    /// Connections refused, by `reason`.
    pub connections_refused: IntCounterVec,
    /// Bodies or answers that could not be read, by `what`.
    pub unreadable: IntCounterVec,
    /// Bounds reached, by `bound`.
    bounds: IntCounterVec,
    /// Connections open now.
    pub connections: IntGauge,
    /// Calls in flight now.
    pub in_flight: IntGauge,
    /// 1 while a changed configuration is refused.
    pub config_refused: IntGauge,
    /// Estimated tokens of a prompt, divided by those that the provider counted.
    estimates: Histogram,
    /// Seconds that Weir added before a request was forwarded.
    pub added: Histogram,
    /// Seconds from forwarding to the first byte of the answer.
    pub first_byte: Histogram,
}

/// What caps did besides refusing.
#[derive(Debug)]
pub struct CapMetrics {
    /// Answers that a cap ended, by `reason`.
    pub ended: IntCounterVec,
    /// Warnings of caps, by `kind` (share, exceeded).
    pub warnings: IntCounterVec,
    /// Accounts of which this process holds a slice.
    pub slices: IntGauge,
    /// Slices on the ledger that nobody holds any more.
    pub ownerless: IntGauge,
    /// Nodes given up.
    pub given_up: IntCounter,
    /// Calls of theirs that are presumed to have cost what was reserved.
    pub presumed: IntCounter,
}

impl CapMetrics {
    /// Takes over what is known of leases.
    pub(crate) fn leases(&self, counts: LeaseCounts) {
        let shown = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.slices.set(shown(counts.slices));
        self.ownerless.set(shown(counts.ownerless));
        for (total, count) in [
            (&self.given_up, counts.given_up),
            (&self.presumed, counts.presumed),
        ] {
            total.inc_by(count.saturating_sub(total.get()));
        }
    }

    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let total = |name: &str, help: &str| {
            let total = IntCounter::new(name, help)?;
            registry.register(Box::new(total.clone()))?;
            Ok::<_, prometheus::Error>(total)
        };
        Ok(Self {
            slices: gauge(
                registry,
                "weir_lease_slices",
                "Accounts of caps of which this process holds a slice of a shared limit.",
            )?,
            ownerless: gauge(
                registry,
                "weir_lease_slices_ownerless",
                "Slices on the shared ledger whose node has ended or is silent: should be 0.",
            )?,
            given_up: total(
                "weir_lease_nodes_given_up_total",
                "Nodes that this process gave up, since they were silent for too long.",
            )?,
            presumed: total(
                "weir_lease_presumed_calls_total",
                "Calls in flight of those nodes, presumed to have cost what was reserved.",
            )?,
            ended: counter(
                "weir_ended_answers_total",
                "Answers that a cap ended before their end.",
                "reason",
            )?,
            warnings: counter(
                "weir_cap_warnings_total",
                "A share of a limit is spent, or a limit that only warns exceeded.",
                "kind",
            )?,
        })
    }
}

impl Metrics {
    /// Registers every metric in a fresh registry.
    ///
    /// # Errors
    /// A name that is not valid or registered twice, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            exchanges: counter(
                "weir_exchanges_total",
                "Exchanges with LLM providers.",
                &["provider", "api", "outcome"],
            )?,
            tokens: counter("weir_tokens_total", "Tokens used.", &["provider", "kind"])?,
            spent: counter(
                "weir_spent_nanodollars_total",
                "Spent, in 10^-9 US dollars.",
                &["provider"],
            )?,
            unpriced: counter(
                "weir_unpriced_calls_total",
                "Calls of models without a known price.",
                &["provider"],
            )?,
            cache: CacheMetrics::new(&registry)?,
            rewritten: rewritten(&registry)?,
            sent_again: sent_again(&registry)?,
            switched: switched(&registry)?,
            recalled: recalled(&registry)?,
            refused: counter("weir_refused_calls_total", "Calls refused.", &["reason"])?,
            caps: CapMetrics::new(&registry)?,
            bypassed: counter(
                "weir_bypassed_connections_total",
                "Connections passed through without inspection.",
                &["reason"],
            )?,
            connections_refused: counter(
                "weir_refused_connections_total",
                "Connections refused.",
                &["reason"],
            )?,
            unreadable: counter(
                "weir_unreadable_total",
                "Requests and answers forwarded without being understood.",
                &["what"],
            )?,
            bounds: counter("weir_bounds_reached_total", "Bounds reached.", &["bound"])?,
            connections: gauge(&registry, "weir_connections", "Connections open now.")?,
            in_flight: gauge(&registry, "weir_calls_in_flight", "Calls in flight now.")?,
            config_refused: gauge(&registry, "weir_config_refused", "A change is refused.")?,
            added: histogram(
                &registry,
                "weir_added_seconds",
                "Time from the last byte of a request to its forwarding.",
                &ADDED_BUCKETS,
            )?,
            first_byte: histogram(
                &registry,
                "weir_upstream_first_byte_seconds",
                "Time from forwarding to the head of the answer.",
                &FIRST_BYTE_BUCKETS,
            )?,
            estimates: histogram(
                &registry,
                "weir_prompt_estimate_ratio",
                "Estimated tokens of a prompt, divided by those that the provider counted.",
                &ESTIMATE_BUCKETS,
            )?,
            registry,
        })
    }

    /// Compares an estimate of a prompt with what the provider counted.
    pub fn estimated(&self, expected: u64, told: u64) {
        if told > 0 {
            self.estimates.observe(expected as f64 / told as f64);
        }
    }

    /// Counts an exchange that is over.
    pub fn record(&self, record: &Record) {
        let provider = record.provider.as_str();
        let labels = [provider, record.api.as_str(), record.outcome.as_str()];
        self.exchanges.with_label_values(&labels).inc();
        if let Some(usage) = &record.usage {
            let written = usage.cache_write.saturating_add(usage.cache_write_long);
            for (kind, tokens) in [
                ("input", usage.input),
                ("cache_read", usage.cache_read),
                ("cache_write", written),
                ("output", usage.output),
            ] {
                self.tokens
                    .with_label_values(&[provider, kind])
                    .inc_by(tokens);
            }
        }
        if record.cost == Cost::Unpriced {
            self.unpriced.with_label_values(&[provider]).inc();
        }
        let nanos = u64::try_from(record.cost.spent().nanos()).unwrap_or_default();
        self.spent.with_label_values(&[provider]).inc_by(nanos);
    }

    /// Counts what the prompt cache did for a call of `provider`.
    pub(crate) fn explained(&self, provider: &str, explained: &Explained) {
        self.cache.explained(provider, explained);
    }

    /// Counts a bound that was reached.
    pub fn bound_reached(&self, bound: Bound) {
        self.counter_of(bound).inc();
    }

    /// Counts how often a bound is reached, for whoever knows nothing else of the metrics.
    pub(crate) fn counter_of(&self, bound: Bound) -> IntCounter {
        self.bounds.with_label_values(&[bound.as_str()])
    }

    /// The metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

/// What the providers' prompt caches did.
#[derive(Debug)]
struct CacheMetrics {
    /// Outcomes, by `provider` and `outcome`.
    outcomes: IntCounterVec,
    /// Why it was not more, by `provider` and `reason`.
    reasons: IntCounterVec,
    /// Nano-dollars that those reasons cost, likewise.
    missed: IntCounterVec,
}

impl CacheMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &["provider", label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        Ok(Self {
            outcomes: counter(
                "weir_cache_outcomes_total",
                "What the provider's prompt cache did.",
                "outcome",
            )?,
            reasons: counter(
                "weir_cache_reasons_total",
                "Calls that read less from the prompt cache than they could have.",
                "reason",
            )?,
            missed: counter(
                "weir_cache_missed_nanodollars_total",
                "What it cost that they did, in 10^-9 US dollars.",
                "reason",
            )?,
        })
    }

    fn explained(&self, provider: &str, explained: &Explained) {
        if let Some(outcome) = &explained.cache_outcome {
            let labels = [provider, outcome.as_str()];
            self.outcomes.with_label_values(&labels).inc();
        }
        if let Some(reason) = &explained.cache_reason {
            let labels = [provider, reason.as_str()];
            self.reasons.with_label_values(&labels).inc();
            let missed = explained.missed.map_or(0, |missed| missed.nanos());
            let missed = u64::try_from(missed).unwrap_or_default();
            self.missed.with_label_values(&labels).inc_by(missed);
        }
    }
}

fn rewritten(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Calls with a prompt, by what was done to it for the cache, or why nothing was.";
    let options = Opts::new("weir_rewritten_calls_total", help);
    let rewritten = IntCounterVec::new(options, &["result"])?;
    registry.register(Box::new(rewritten.clone()))?;
    Ok(rewritten)
}

fn recalled(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Conversations looked up in the shared ledger, since another node may have served \
                their previous turn.";
    let options = Opts::new("weir_conversations_recalled_total", help);
    let recalled = IntCounterVec::new(options, &["result"])?;
    registry.register(Box::new(recalled.clone()))?;
    Ok(recalled)
}

fn sent_again(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Calls whose history was refused, by the form that was taken when they were sent again \
                (as_it_came, remembered, another, anew), or in_vain or not_answered; known_in_vain, \
                where all forms had been refused before and none was sent.";
    let options = Opts::new("weir_sent_again_calls_total", help);
    let sent_again = IntCounterVec::new(options, &["result"])?;
    registry.register(Box::new(sent_again.clone()))?;
    Ok(sent_again)
}

fn switched(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let help = "Values that change in the prompts of a workload, by what is done about them from \
                then on: moved (it saves), kept (moving saved nothing), off (telling cost more).";
    let options = Opts::new("weir_rewrite_switched_total", help);
    let switched = IntCounterVec::new(options, &["standing"])?;
    registry.register(Box::new(switched.clone()))?;
    Ok(switched)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(opts)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// Closer around one, which is a perfect estimate.
const ESTIMATE_BUCKETS: [f64; 13] = [
    0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0,
];
/// Seconds.
const ADDED_BUCKETS: [f64; 10] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1, 1.0,
];
/// Seconds.
const FIRST_BYTE_BUCKETS: [f64; 11] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_once_under_a_valid_name() {
        let metrics = Metrics::new().unwrap();
        metrics.bound_reached(Bound::RequestBody);
        assert!(
            metrics
                .render()
                .contains("weir_bounds_reached_total{bound=\"request_body\"} 1")
        );
    }
}
