//! The model: Gaussian naive Bayes on Fisher's iris data ("The use of multiple measurements in
//! taxonomic problems", Annals of Eugenics 7, 1936), trained when the server starts, and the
//! engine that gives a call the cost a benchmark asks for.

use std::f64::consts::TAU;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Sepal length and width, petal length and width, in centimetres.
pub(crate) type Instance = [f64; 4];

/// Class names; a prediction is an index into them.
pub(crate) const CLASSES: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// What a call costs beyond the arithmetic: benchmarks stand a slow model in with it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) per_call: Duration,
    pub(crate) per_instance: Duration,
    /// One call at a time.
    pub(crate) serial: bool,
}

/// The classifier and its cost model, shared by all connections.
pub(crate) struct Engine {
    classifier: Classifier,
    cost: Cost,
    /// Held for a whole call, sleep included, when the cost model is serial: that is the point.
    turn: Mutex<()>,
    calls: AtomicU64,
    instances: AtomicU64,
}

impl Engine {
    pub(crate) fn new(cost: Cost) -> Self {
        let classifier = Classifier::train(&data());
        Self { classifier, cost, turn: Mutex::new(()), calls: AtomicU64::new(0), instances: AtomicU64::new(0) }
    }

    /// Calls that were made, and instances in all of them: how well the callers batch.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.instances.load(Ordering::Relaxed))
    }

    /// One call: the class of each instance, in order.
    pub(crate) fn predict(&self, instances: &[Instance]) -> Vec<usize> {
        // The lock guards no data, so a panic under it left nothing half done.
        let take = || self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.cost.serial.then(take);
        let count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.instances.fetch_add(count.into(), Ordering::Relaxed);
        let pause = self.cost.per_call + self.cost.per_instance * count;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let classes = instances.iter().map(|instance| self.classifier.classify(instance)).collect();
        drop(turn);
        classes
    }
}

/// Per class and feature a normal distribution; features are taken as independent.
struct Classifier {
    classes: [Class; CLASSES.len()],
}

#[derive(Clone, Copy, Default)]
struct Class {
    mean: Instance,
    variance: Instance,
    log_prior: f64,
}

impl Classifier {
    fn train(samples: &[(Instance, usize)]) -> Self {
        let mut classes = [Class::default(); CLASSES.len()];
        for (number, class) in classes.iter_mut().enumerate() {
            let members = || samples.iter().filter(|(_, label)| *label == number).map(|(x, _)| x);
            let count: f64 = members().map(|_| 1.0).sum();
            let all: f64 = samples.iter().map(|_| 1.0).sum();
            for feature in 0..class.mean.len() {
                let mean = members().map(|x| x[feature]).sum::<f64>() / count;
                let squares = members().map(|x| (x[feature] - mean).powi(2)).sum::<f64>();
                class.mean[feature] = mean;
                // The data are in steps of 0.1; a feature without spread must not divide by zero.
                class.variance[feature] = squares / count + 1e-9;
            }
            class.log_prior = (count / all).ln();
        }
        Self { classes }
    }

    /// The class with the highest posterior.
    fn classify(&self, instance: &Instance) -> usize {
        let scores = self.classes.iter().map(|class| class.log_posterior(instance)).enumerate();
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(number, _)| number)
    }
}

impl Class {
    /// Up to a constant that all classes share.
    fn log_posterior(&self, instance: &Instance) -> f64 {
        let features = instance.iter().zip(&self.mean).zip(&self.variance);
        let fit = features.map(|((x, mean), variance)| -0.5 * ((TAU * variance).ln() + (x - mean).powi(2) / variance));
        self.log_prior + fit.sum::<f64>()
    }
}

/// The 150 flowers with their class.
fn data() -> Vec<(Instance, usize)> {
    let labelled = ROWS
        .iter()
        .enumerate()
        .flat_map(|(label, rows)| rows.split_whitespace().map(move |row| (decode(row.as_bytes()), label)));
    labelled.collect()
}

fn decode(row: &[u8]) -> Instance {
    let digit = |at: usize| f64::from(row[at] - b'0');
    [0, 2, 4, 6].map(|at| digit(at) + digit(at + 1) / 10.0)
}

/// One text per class, one word of eight digits per flower: four measurements in millimetres.
#[rustfmt::skip]
const ROWS: [&str; CLASSES.len()] = [
    "51351402 49301402 47321302 46311502 50361402 54391704 46341403 50341502 44291402 49311501 \
     54371502 48341602 48301401 43301101 58401202 57441504 54391304 51351403 57381703 51381503 \
     54341702 51371504 46361002 51331705 48341902 50301602 50341604 52351502 52341402 47321602 \
     48311602 54341504 52411501 55421402 49311502 50321202 55351302 49361401 44301302 51341502 \
     50351303 45231303 44321302 50351606 51381904 48301403 51381602 46321402 53371502 50331402",
    "70324714 64324515 69314915 55234013 65284615 57284513 63334716 49243310 66294613 52273914 \
     50203510 59304215 60224010 61294714 56293613 67314414 56304515 58274110 62224515 56253911 \
     59324818 61284013 63254915 61284712 64294313 66304414 68284814 67305017 60294515 57263510 \
     55243811 55243710 58273912 60275116 54304515 60344516 67314715 63234413 56304113 55254013 \
     55264412 61304614 58264012 50233310 56274213 57304212 57294213 62294313 51253011 57284113",
    "63336025 58275119 71305921 63295618 65305822 76306621 49254517 73296318 67255818 72366125 \
     65325120 64275319 68305521 57255020 58285124 64325323 65305518 77386722 77266923 60225015 \
     69325723 56284920 77286720 63274918 67335721 72326018 62284818 61304918 64285621 72305816 \
     74286119 79386420 64285622 63285115 61265614 77306123 63345624 64315518 60304818 69315421 \
     67315624 69315123 58275119 68325923 67335725 67305223 63255019 65305220 62345423 59305118",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_data_are_the_150_flowers() {
        let data = data();
        assert_eq!(data.len(), 150);
        for label in 0..CLASSES.len() {
            assert_eq!(data.iter().filter(|(_, l)| *l == label).count(), 50);
        }
        // Means of the four measurements, as every description of the data set gives them.
        for (feature, expected) in [5.843, 3.057, 3.758, 1.199].into_iter().enumerate() {
            let mean = data.iter().map(|(x, _)| x[feature]).sum::<f64>() / 150.0;
            assert!((mean - expected).abs() < 0.001, "feature {feature}: {mean}");
        }
    }

    /// Each flower is classified by a model that has not seen it: five models, each trained on
    /// four fifths.
    #[test]
    fn flowers_that_were_not_trained_on_are_classified() {
        let data = data();
        let mut right = 0;
        for fold in 0..5 {
            let (rest, held): (Vec<_>, Vec<_>) = data.iter().enumerate().partition(|(index, _)| index % 5 != fold);
            let rest: Vec<_> = rest.into_iter().map(|(_, sample)| *sample).collect();
            let model = Classifier::train(&rest);
            right += held.iter().filter(|(_, (x, label))| model.classify(x) == *label).count();
        }
        let accuracy = f64::from(u32::try_from(right).unwrap_or(0)) / 150.0;
        assert!(accuracy > 0.93, "accuracy {accuracy}");
    }

    #[test]
    fn an_engine_counts_calls_and_instances() {
        let engine = Engine::new(Cost::default());
        engine.predict(&[[5.1, 3.5, 1.4, 0.2]; 3]);
        engine.predict(&[[5.1, 3.5, 1.4, 0.2]]);
        assert_eq!(engine.counts(), (2, 4));
    }

    #[test]
    fn a_serial_engine_takes_one_call_at_a_time() {
        let cost = Cost { per_call: Duration::from_millis(20), serial: true, ..Cost::default() };
        let engine = Engine::new(cost);
        let begin = Instant::now();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| engine.predict(&[[5.1, 3.5, 1.4, 0.2]]));
            }
        });
        assert!(begin.elapsed() >= Duration::from_millis(60));
    }
}
