//! Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), and draws from it in the way of Python's `random` module.
//!
//! The grammar's Python form, which trained and tested the mini teacher, draws from that module. With the same draws a seed
//! names the same entities in both, so that a student can be asked about entities that the teacher never saw.

/// Length of the state in 32-bit words.
const N: usize = 624;
/// Distance between the state words that one step mixes.
const M: usize = 397;

/// A stream of random numbers that its seed determines.
pub(crate) struct Mersenne {
    state: [u32; N],
    next: usize,
}

impl Mersenne {
    /// The stream of `random.Random(seed)`.
    pub(crate) fn new(seed: u64) -> Self {
        let words = [(seed & 0xffff_ffff) as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        // init_genrand(19650218), then init_by_array(key)
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(state[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            state[i] = (state[i] ^ mixed(state[i - 1], 1_664_525)).wrapping_add(key[j]).wrapping_add(j as u32);
            (i, j) = (following(i, &mut state), (j + 1) % key.len());
        }
        for _ in 1..N {
            state[i] = (state[i] ^ mixed(state[i - 1], 1_566_083_941)).wrapping_sub(i as u32);
            i = following(i, &mut state);
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random()`: at least 0 and below 1, with 53 bits.
    pub(super) fn unit(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `_randbelow(n)`: a number below `n`, for `0 < n < 2^32`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let draw = (self.next_u32() >> (32 - bits)) as usize;
            if draw < n {
                return draw;
            }
        }
    }

    /// One of the items, as `choice(items)` draws it.
    pub(super) fn choice<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Permutes the items as `shuffle(items)` does.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// `sample(items, k)`: k different ones, for `k <= items.len()`.
    pub(super) fn sample<T: Clone>(&mut self, items: &[T], k: usize) -> Vec<T> {
        let n = items.len();
        // Small populations are drawn from a shrinking pool, large ones anew until the draw is fresh.
        let mut pool_limit = 21;
        if k > 5 {
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            pool_limit += power;
        }
        let mut taken = Vec::with_capacity(k);
        if n <= pool_limit {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let j = self.below(n - i);
                taken.push(pool[j]);
                pool[j] = pool[n - i - 1];
            }
        } else {
            while taken.len() < k {
                let j = self.below(n);
                if !taken.contains(&j) {
                    taken.push(j);
                }
            }
        }
        taken.into_iter().map(|at| items[at].clone()).collect()
    }
}

fn mixed(word: u32, factor: u32) -> u32 {
    (word ^ (word >> 30)).wrapping_mul(factor)
}

/// The next place in the state; a full turn takes the last word to the front.
fn following(i: usize, state: &mut [u32; N]) -> usize {
    if i + 1 < N {
        return i + 1;
    }
    state[0] = state[N - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::Mersenne;

    /// The draws of Python 3 for `r = random.Random(seed)`: two of `r.random()`, three of `r.randrange(1000)`,
    /// `r.sample(range(300), 2)` and `r.sample(range(40), 7)`.
    #[test]
    fn draws_are_those_of_python() {
        let numbers = |n: usize| (0..n).collect::<Vec<_>>();
        for (seed, units, below, few, many) in GOLDEN {
            let mut random = Mersenne::new(seed);
            assert_eq!([random.unit(), random.unit()], units, "{seed}");
            assert_eq!([random.below(1000), random.below(1000), random.below(1000)], below, "{seed}");
            assert_eq!(random.sample(&numbers(300), 2), few, "{seed}");
            assert_eq!(random.sample(&numbers(40), 7), many, "{seed}");
        }
    }

    type Row = (u64, [f64; 2], [usize; 3], [usize; 2], [usize; 7]);
    const GOLDEN: [Row; 3] = [
        (0, [0.8444218515250481, 0.7579544029403025], [430, 41, 265], [261, 248], [25, 19, 30, 22, 13, 32, 8]),
        (7, [0.32383276483316237, 0.15084917392450192], [666, 49, 74], [274, 48], [23, 37, 3, 32, 13, 2, 5]),
        (
            1099511640121,
            [0.31036222241287226, 0.1148930862836336],
            [546, 142, 208],
            [70, 45],
            [39, 18, 0, 12, 17, 24, 19],
        ),
    ];
}
