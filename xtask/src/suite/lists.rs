//! The words of the retrieval grammar: made-up values come from syllables, everything else from these lists.
//!
//! The same lists as `fixtures/craftsman-mini/train/rag.py`, in the same order: with another order a seed would draw other words.

/// First words of entities.
pub(super) const ADJECTIVES: &str = "\
    amber ashen azure bitter black bold brass brave bright broken calm cedar clear cold copper coral crimson dark \
    deep dim distant dry dusty early east empty fading far fierce fine first flat frozen gentle gilded glass \
    golden grand grave green grey hallow harsh hazel hidden high hollow humble icy iron ivory jade keen kind last \
    late light lone long lost loud low lunar mellow misty mossy narrow noble north old open pale pearl plain proud \
    quiet rapid raw red rich rough royal rusty sacred sandy scarlet silent silver slow small soft solar south \
    stark steep still stone storm stout sunny sweet swift tall tame thin tidal upper vast velvet warm west white \
    wide wild winter wise young";

/// Second words of entities.
pub(super) const NOUNS: &str = "\
    abbey acre anchor arch bank barn basin bay beacon bend bluff bridge brook camp canyon cape castle cave chapel \
    cliff close coast cove court creek cross dale delta den dock dune falls farm fen ferry field fjord ford forest \
    fort gate glade glen grange grove gulf harbor haven heath hill hollow house inlet island keep lagoon lake \
    landing ledge lodge manor marsh meadow mesa mill mine moor mount oasis orchard park pass peak pier plain plaza \
    point pond port prairie quarry range reach ridge rise river rock route sands shoal shore spire spring square \
    station summit terrace tower trail vale valley view villa ward well wharf wood yard";

/// Relations: a question asks for one of an entity.
pub(super) const RELATIONS: &str = "\
    capital river founder colour harvest keeper emblem language festival currency guardian anthem climate export \
    patron market";

/// First and second syllables of values.
pub(super) const SYLLABLES: &str = "\
    ba be bi bo da de di do fa fe ga go ha he ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe ra re ri ro sa \
    se si so ta te ti to va ve vi vo za ze zo";

/// Last syllables of values.
pub(super) const ENDINGS: &str = "\
    lan ren dor mir nel tas vek rin sol gar len dun fer hol jin kas lum mar nox pol";

/// The sources that chunks name.
pub(super) const SOURCES: &str = "\
    almanac atlas census chronicle digest gazette herald ledger register review survey yearbook";
