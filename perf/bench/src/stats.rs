//! Medians, and how far samples are apart.

use serde::Serialize;

/// A sample's summary.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of `samples`; none if there are none.
    pub fn of(samples: &[f64]) -> Option<Spread> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let below = if sorted.len().is_multiple_of(2) { sorted[middle - 1] } else { sorted[middle] };
        Some(Spread { median: (below + sorted[middle]) / 2.0, min, max })
    }

    /// Of the ratios of samples that were taken side by side: what the machine did meanwhile happened to both.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Spread::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]), Some(Spread { median: 3.0, min: 3.0, max: 3.0 }));
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn ratios_are_of_neighbours() {
        // The machine was half as fast in the second round: the ratio does not mind.
        let spread = Spread::of_ratios(&[10.0, 5.0, 9.0], &[5.0, 2.5, 6.0]);
        assert_eq!(spread, Some(Spread { median: 2.0, min: 1.5, max: 2.0 }));
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }
}
