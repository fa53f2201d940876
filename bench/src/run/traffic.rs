//! Traffic that options describe: they replace the fields of a scenario.

use echobench_clients::{Arrivals, Driver, Spacing, WorkMix};

use crate::scenario::{Capacity, Payload, Placement, Scenario, Slo, Span, Values};

/// Name of the scenario that options alone describe.
pub(super) const CUSTOM: &str = "custom";

/// Fields of a scenario that options replace; those that are empty are kept.
#[derive(Clone, Debug, Default)]
pub struct TrafficOptions {
    /// Numbers of clients.
    pub clients: Vec<u32>,
    /// Forms of the clients.
    pub drivers: Vec<Driver>,
    /// CPUs of servers and clients.
    pub placements: Vec<Placement>,
    /// Payloads of the requests.
    pub payloads: Vec<Payload>,
    /// Work of the server before it replies.
    pub works: Vec<WorkMix>,
    /// Pauses between a reply and the next request.
    pub thinks: Vec<Span>,
    /// Requests per second of an open loop.
    pub rate: Option<f64>,
    /// Spacing of these requests.
    pub spacing: Option<Spacing>,
    /// Whether to search for the highest rate that keeps the objective.
    pub capacity: bool,
    /// Width at which that search ends, as a share of the rate.
    pub precision: Option<f64>,
    /// Requests on a connection.
    pub requests_per_connection: Option<u64>,
    /// Time over which the clients connect.
    pub ramp_up: Option<Span>,
    /// Objective of an open loop.
    pub slo: Option<Slo>,
    /// The arm that ratios refer to.
    pub reference: Option<String>,
}

impl TrafficOptions {
    /// Replaces the fields of a scenario.
    pub(super) fn apply(&self, scenario: &mut Scenario) {
        if !self.clients.is_empty() || !self.drivers.is_empty() {
            // The loads are those of the options, and of nothing else.
            scenario.beside.clear();
        }
        replace(&mut scenario.clients, &self.clients);
        replace(&mut scenario.drivers, &self.drivers);
        if !self.placements.is_empty() {
            scenario.place(&self.placements);
        }
        if self.reference.is_some() {
            scenario.reference.clone_from(&self.reference);
        }
        self.apply_to_requests(scenario);
        if self.capacity {
            self.apply_search(scenario);
        }
        if scenario.is_open_loop() {
            scenario.slo = self.slo.or(scenario.slo);
        }
        if self.changes_requests() {
            scenario.lengthen();
        }
    }

    fn apply_to_requests(&self, scenario: &mut Scenario) {
        let traffic = &mut scenario.traffic;
        replace_values(&mut traffic.payload_bytes, &self.payloads);
        replace_values(&mut traffic.work, &self.works);
        replace_values(&mut traffic.think, &self.thinks);
        if self.requests_per_connection.is_some() {
            traffic.requests_per_connection = self.requests_per_connection;
        }
        traffic.ramp_up = self.ramp_up.unwrap_or(traffic.ramp_up);
        if let Some(per_second) = self.rate {
            // The rate is given, and no longer found from a peak.
            scenario.sweep = None;
            let known = traffic.arrivals.map(|arrivals| arrivals.spacing);
            traffic.arrivals = Some(Arrivals {
                per_second,
                spacing: self.spacing.or(known).unwrap_or_default(),
            });
        }
    }

    /// Makes the scenario a search. Rates, and pauses in place of them, are no longer given.
    fn apply_search(&self, scenario: &mut Scenario) {
        scenario.sweep = None;
        scenario.traffic.arrivals = None;
        scenario.traffic.think = Values::default();
        let mut capacity = scenario.capacity.take().unwrap_or_default();
        capacity.spacing = self.spacing.unwrap_or(capacity.spacing);
        capacity.precision = self.precision.unwrap_or(capacity.precision);
        scenario.capacity = Some(capacity);
        for effort in [&mut scenario.quick, &mut scenario.full] {
            effort.blocks = Capacity::BLOCKS;
        }
    }

    /// Whether the requests, or their number at a time, are others than those of the scenario.
    fn changes_requests(&self) -> bool {
        !self.clients.is_empty()
            || !self.payloads.is_empty()
            || !self.works.is_empty()
            || !self.thinks.is_empty()
            || self.rate.is_some()
            || self.capacity
            || self.requests_per_connection.is_some()
    }
}

fn replace<T: Clone>(list: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        given.clone_into(list);
    }
}

fn replace_values<T: Clone>(values: &mut Values<T>, given: &[T]) {
    if let Some(given) = Values::of(given.to_vec()) {
        *values = given;
    }
}
