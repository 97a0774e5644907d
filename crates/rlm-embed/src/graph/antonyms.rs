//! Pairs of opposite English words, by stem.

use behavior_eval::labels::stem;

/// Each line holds words that mean one thing, `/`, and words that mean its opposite.
const PAIRS: &str = "open opens opened opening/close closes closed closing shut shuts
cure cures cured heal heals healed/cause causes caused worsen worsens worsened
rise rises rose risen increase increases increased grow grows grew gain gained climb climbed/fall falls fell fallen decrease decreases decreased drop dropped decline declined shrink shrank lose lost
allow allows allowed permit permits permitted legal lawful/forbid forbids forbidden prohibit prohibits prohibited ban bans banned illegal unlawful
accept accepts accepted approve approved/reject rejects rejected refuse refused
safe harmless/unsafe dangerous harmful hazardous toxic
hot warm/cold cool
high higher highest/low lower lowest
large larger largest big bigger/small smaller smallest
long longer longest/short shorter shortest
early earlier/late later
before/after
more/less fewer
win wins won/lose loses lost
succeed succeeds succeeded success/fail fails failed failure
alive living/dead extinct
true correct/false wrong incorrect
present available/absent unavailable missing
begin begins began start starts started/end ends ended stop stops stopped
north northern/south southern
east eastern/west western
left/right
public/private
friend ally/enemy rival
buy buys bought/sell sells sold
build built construct constructed/demolish demolished destroy destroyed
dry arid/wet humid rainy
fresh/salt salty
strong stronger/weak weaker
fast faster quick/slow slower
rich/poor
young younger new newer/old older
always/never
active/inactive dormant
possible/impossible
guilty/innocent
soluble/insoluble
edible/inedible poisonous
include includes included/exclude excludes excluded
support supports supported/oppose opposes opposed
protect protects protected/threaten threatens threatened
full/empty";

/// Whether two words, in lower case, are opposites.
pub(super) fn are_opposite(a: &str, b: &str) -> bool {
    let (a, b) = (stem(a), stem(b));
    let holds = |side: &str, word: &str| side.split_ascii_whitespace().any(|listed| stem(listed) == word);
    PAIRS
        .lines()
        .filter_map(|line| line.split_once('/'))
        .any(|(one, other)| (holds(one, a) && holds(other, b)) || (holds(one, b) && holds(other, a)))
}

#[cfg(test)]
mod tests {
    use super::are_opposite;

    #[test]
    fn opposites_in_both_directions() {
        for (a, b) in [("open", "closed"), ("forbidden", "allows"), ("rose", "fell"), ("harmless", "toxic")] {
            assert!(are_opposite(a, b) && are_opposite(b, a), "{a} {b}");
        }
        assert!(!are_opposite("open", "opened") && !are_opposite("river", "bridge") && !are_opposite("open", "open"));
    }
}
