//! A few samples, spread evenly over a stream of unknown length.

/// Keeps every n-th item; n doubles whenever too many have gathered.
pub struct EvenSamples<T> {
    kept: Vec<T>,
    wanted: usize,
    stride: usize,
    num_offered: usize,
}

impl<T> EvenSamples<T> {
    /// Will give `wanted` items.
    pub fn new(wanted: usize) -> Self {
        Self { kept: Vec::new(), wanted, stride: 1, num_offered: 0 }
    }

    /// Offers the next item, which is made only if it is kept.
    ///
    /// # Errors
    /// Whatever `make` returns.
    pub fn offer(&mut self, make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<()> {
        if self.wanted > 0 && self.num_offered.is_multiple_of(self.stride) {
            if self.kept.len() == 2 * self.wanted {
                let mut position = 0..;
                self.kept.retain(|_| position.next().is_some_and(|index: usize| index.is_multiple_of(2)));
                self.stride *= 2;
            }
            if self.num_offered.is_multiple_of(self.stride) {
                self.kept.push(make()?);
            }
        }
        self.num_offered += 1;
        Ok(())
    }

    /// At most the wanted number of items, evenly spread over what was offered.
    pub fn take(self) -> Vec<T> {
        let (num_kept, num_taken) = (self.kept.len(), self.wanted.min(self.kept.len()));
        let chosen: Vec<usize> = (0..num_taken).map(|index| index * num_kept / num_taken).collect();
        self.kept.into_iter().enumerate().filter(|(index, _)| chosen.contains(index)).map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic
    use super::EvenSamples;

    #[test]
    fn a_long_stream_gives_the_wanted_number_evenly_spread() {
        let mut samples = EvenSamples::new(4);
        for item in 0..1000 {
            samples.offer(|| Ok(item)).unwrap();
        }
        let taken = samples.take();
        assert_eq!(taken.len(), 4);
        assert_eq!(taken[0], 0);
        assert!(taken.windows(2).all(|pair| (100..=300).contains(&(pair[1] - pair[0]))), "{taken:?}");
    }

    #[test]
    fn a_short_stream_gives_all_it_has() {
        let mut samples = EvenSamples::new(4);
        for item in 0..3 {
            samples.offer(|| Ok(item)).unwrap();
        }
        assert_eq!(samples.take(), [0, 1, 2]);
    }
}
