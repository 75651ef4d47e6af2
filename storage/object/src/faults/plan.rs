//! Which fault strikes which request: rules first, chance second.

use std::fmt;

use esker_env::sim::SeededEntropy;

use super::Fault;
use crate::request::{Request, Verb};

/// One fault for some requests. As made it strikes the next request of any verb and key, once.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    verb: Option<Verb>,
    prefix: String,
    skip: u64,
    times: u64,
}

impl Rule {
    /// `fault`, once, for the next request.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            verb: None,
            prefix: String::new(),
            skip: 0,
            times: 1,
        }
    }

    /// Only for requests of `verb`.
    #[must_use]
    pub fn on(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Only for keys (or listings) that begin with `prefix`: a key's or a prefix's text.
    #[must_use]
    pub fn under(mut self, prefix: impl fmt::Display) -> Self {
        self.prefix = prefix.to_string();
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn after(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Strikes `count` matching requests instead of one.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Strikes every matching request.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    fn matches(&self, request: &Request) -> bool {
        self.verb.is_none_or(|verb| verb == request.verb())
            && request.path().starts_with(&self.prefix)
    }
}

/// Rules and chances in force.
#[derive(Debug, Default)]
pub(super) struct Plan {
    rules: Vec<Rule>,
    chance: Option<Chance>,
}

#[derive(Debug)]
struct Chance {
    entropy: SeededEntropy,
    mix: Vec<(Fault, u64)>,
}

impl Plan {
    pub(super) fn script(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn random(&mut self, seed: u64, mix: &[(Fault, u64)]) {
        self.chance = Some(Chance {
            entropy: SeededEntropy::new(seed),
            mix: mix.to_vec(),
        });
    }

    /// The fault that strikes `request`, if any.
    pub(super) fn strike(&mut self, request: &Request) -> Option<Fault> {
        self.rules.retain(|rule| rule.times > 0);
        for rule in self.rules.iter_mut().filter(|rule| rule.matches(request)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.fault);
        }
        let chance = self.chance.as_ref()?;
        let struck = |per_mille: u64| chance.entropy.below(1000) < per_mille;
        let hit = chance.mix.iter().find(|&&(_, per_mille)| struck(per_mille));
        hit.map(|&(fault, _)| fault)
    }
}
