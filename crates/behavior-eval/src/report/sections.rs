//! A report cut into blocks: the same order and words for Markdown and HTML.

use super::gate_report::{GateReport, ModelReport};
use super::page::{Block, Page, Plot, Series, Tone};
use crate::gates::{GateResult, Outcome, Reads, RoutingFigures, RoutingReport};
use crate::labels::{LabelCounts, LabelFigures, Removal, Stability};
use crate::stats::{Figure, Share};
use crate::suite::Label;

pub(super) fn page(report: &GateReport) -> Page {
    let title =
        format!("{}: {} against {} on {}", report.verdict, report.student.name, report.teacher.name, report.suite.name);
    let mut page = Page { title, good: report.passed(), blocks: Vec::new() };
    page.blocks.push(Block::List(report.summary.clone()));
    page.heading("Gates");
    page.text(demands(report));
    gates(report, &mut page);
    failures(report, &mut page);
    baseline(report, &mut page);
    repaired(report, &mut page);
    routing(report, &mut page);
    answers(report, &mut page);
    if let Some(fidelity) = &report.fidelity {
        page.heading("Distributions over the teacher's answers");
        page.text(format!(
            "KL divergence from the teacher: mean {:.5} nats, a lower bound: the tokens beyond the likeliest ones, which have \
             a probability of {:.5} together, count as one. Same most likely token: {}.",
            fidelity.kl_mean,
            fidelity.tail_mass,
            figure_text(Some(&fidelity.same_top1))
        ));
        let points = fidelity.kl_by_position.iter().enumerate().map(|(i, &kl)| (i as f64, kl)).collect();
        page.blocks.push(Block::Plot(Plot {
            title: "KL divergence by position in the answer".into(),
            x: "token of the answer",
            y: "nats",
            series: vec![Series { name: "mean", points }],
            line: None,
        }));
    }
    if let Some(perturbation) = &report.perturbation {
        perturbed(perturbation, &mut page);
    }
    labelled(&report.labels, &mut page);
    identities(report, &mut page);
    page
}

/// The figure with its interval: `0.6996 [0.6438, 0.7500] (198 of 283; 140 prompts)`.
pub(crate) fn figure_text(figure: Option<&Figure>) -> String {
    let Some(f) = figure else { return "nothing to measure on".to_owned() };
    let from = match (f.numerator, f.denominator) {
        (Some(part), Some(whole)) if whole == f.n => format!("{part} of {whole}"),
        (Some(part), Some(whole)) => format!("{part} of {whole}; {} prompts", f.n),
        _ => format!("{} prompts", f.n),
    };
    format!("{:.4} [{:.4}, {:.4}] ({from})", f.value, f.low95, f.high95)
}

/// A share with its interval: `0.9980 [0.9975, 0.9984] (49873 of 49973)`.
fn share_text(share: &Share) -> String {
    let Share { value, count, n, low95, high95 } = share;
    format!("{value:.4} [{low95:.4}, {high95:.4}] ({count} of {n})")
}

/// The threshold of a gate, in words.
pub(crate) fn demand(result: &GateResult, strict: bool) -> String {
    format!("{} {}", if strict { "lower end >=" } else { ">=" }, result.demanded())
}

/// One word for how a gate ended.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::TooFew => "too few",
    }
}

fn demands(report: &GateReport) -> String {
    let rule = if report.settings.strict {
        "A gate passes when the lower end of the 95 % interval reaches its threshold (strict)."
    } else {
        "A gate passes when its figure reaches its threshold."
    };
    format!("{rule} In brackets: the 95 % interval, then what the figure was counted from.")
}

fn gates(report: &GateReport, page: &mut Page) {
    let rows = report.student.gates.iter().map(|result| {
        let kept = report.retention.iter().find(|r| r.gate == result.gate).and_then(|r| r.kept);
        let teacher = match report.teacher.gates.iter().find(|r| r.gate == result.gate) {
            None => "the reference".to_owned(),
            Some(r) if r.passed() => figure_text(r.figure.as_ref()),
            Some(r) => format!("{} (misses)", figure_text(r.figure.as_ref())),
        };
        let cells = [
            result.gate.name().to_owned(),
            outcome_word(result.outcome).to_owned(),
            demand(result, report.settings.strict),
            figure_text(result.figure.as_ref()),
            teacher,
            kept.map_or_else(String::new, |kept| format!("{:.1}\u{a0}%", 100.0 * kept)),
        ];
        (if result.passed() { Tone::Good } else { Tone::Bad }, cells)
    });
    page.table(["gate", "outcome", "demanded", "student", "teacher", "kept"], rows);
}

fn failures(report: &GateReport, page: &mut Page) {
    for failure in &report.failures {
        page.heading(&format!("Failed: {}", failure.gate));
        page.text(failure.what.clone());
        if !failure.worst_layers.is_empty() {
            page.text(format!("Layers with the lowest agreement: {}.", failure.layers_text()));
        }
        let worst = failure.worst_prompts.iter().map(|p| {
            let cells = [&p.prompt_id, &p.label, &p.why, &p.question, &p.response, &p.teacher_response];
            (Tone::Plain, cells.map(|cell| shorten(cell)))
        });
        page.table(["prompt", "label", "what is wrong", "question", "student", "teacher"], worst);
        let misrouted = failure.misrouted.iter();
        let misrouted = misrouted.map(|m| [m.prompt_id.clone(), m.layer.to_string(), shorten(&ranges(&m.tokens))]);
        page.table(["prompt", "layer", "misrouted tokens"], misrouted.map(|cells| (Tone::Plain, cells)));
        page.text(format!("Remedy: {}.", failure.remedy_text()));
    }
}

/// Ascending numbers with runs joined: `3, 5-9`.
fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(n) => *end = n,
            _ => parts.push((n, n)),
        }
    }
    let text = |(from, to): &(u32, u32)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// At most 400 characters: a page shows where to look, the trace has everything.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}

fn baseline(report: &GateReport, page: &mut Page) {
    let Some(baseline) = &report.baseline else { return };
    page.heading("Against the baseline");
    let rows = baseline.figures.iter().map(|change| {
        let cells = [
            change.gate.name().to_owned(),
            figure_text(change.baseline.as_ref()),
            figure_text(change.now.as_ref()),
            change.change.map_or_else(String::new, |c| format!("{c:+.4}")),
        ];
        (if change.regressed { Tone::Bad } else { Tone::Plain }, cells)
    });
    page.table(["gate", "baseline", "now", "change"], rows);
    let mut sentences = baseline.regressions.clone();
    if sentences.is_empty() {
        sentences.push("No regression beyond chance.".to_owned());
    }
    page.blocks.push(Block::List([sentences, baseline.notes.clone()].concat()));
}

fn repaired(report: &GateReport, page: &mut Page) {
    let Some(repaired) = &report.repaired else { return };
    page.heading("Before the repair");
    page.text(format!(
        "{} ({}) failed and was repaired: {}.",
        repaired.name,
        repaired.identity,
        repaired.steps.join(", then ")
    ));
    let word = |passed: bool| if passed { "pass" } else { "FAIL" };
    let rows = repaired.gates.iter().map(|gate| {
        let cells = [
            gate.gate.name().to_owned(),
            format!("{} {}", word(gate.passed_before), figure_text(gate.before.as_ref())),
            format!("{} {}", word(gate.passes_after), figure_text(gate.after.as_ref())),
        ];
        (if gate.passes_after { Tone::Good } else { Tone::Bad }, cells)
    });
    page.table(["gate", "before", "behind"], rows);
}

fn routing(report: &GateReport, page: &mut Page) {
    let (free, local) = (&report.routing, report.local_routing.as_ref());
    let all = &free.figures;
    page.heading("Routing");
    page.text(format!(
        "Every token of the prompts and of the teacher's answers, in every layer with a router: the same set of experts in {}. \
         Shared experts {:.4}, shared weight {:.4}, same heaviest expert {:.4}{}. The worst layer is {}.",
        share_text(&all.agreement),
        all.overlap,
        all.mass,
        all.top1.value,
        all.margin_correlation.map_or_else(String::new, |r| format!(", correlation of margins {r:.4}")),
        free.worst_layer,
    ));
    if let Some(local) = local {
        page.text(format!(
            "With every router fed the teacher's states: {}. What is lost there is damage of the routers themselves, the rest \
             is drift of the states they read.",
            share_text(&local.figures.agreement)
        ));
    }
    let rows = free.layers.iter().enumerate().map(|(index, layer)| {
        let local = local.and_then(|l| l.layers.get(index)).map(|l| share_text(&l.figures.agreement));
        let cells = [
            layer.layer.to_string(),
            share_text(&layer.figures.agreement),
            format!("{:.4}", layer.figures.overlap),
            format!("{:.4}", layer.figures.mass),
            format!("{:.4}", layer.figures.top1.value),
            local.unwrap_or_else(|| "not recorded".to_owned()),
        ];
        (Tone::Plain, cells)
    });
    page.table(["layer", "same set", "shared experts", "shared weight", "same heaviest", "local: same set"], rows);
    let gate = report.student.gates.iter().find(|r| r.gate.row().reads == Reads::Routing);
    page.blocks.push(Block::Plot(Plot {
        title: "Routing agreement by layer; dashed: what the gate demands of all layers together".into(),
        x: "layer",
        y: "share of decisions",
        series: by_layer(free, local, |figures| figures.agreement.value),
        line: gate.map(|gate| gate.threshold),
    }));
    page.blocks.push(Block::Plot(Plot {
        title: "Drift by layer: routing weight given to other experts than the teacher's".into(),
        x: "layer",
        y: "share of weight",
        series: by_layer(free, local, |figures| 1.0 - figures.mass),
        line: None,
    }));
    if let Some(coherence) = &report.coherence {
        page.text(format!(
            "Final hidden states: mean cosine with the teacher's {:.4}, lowest {:.4}, over {} positions.",
            coherence.mean, coherence.lowest, coherence.n
        ));
    }
}

/// One line for free-running routing, one for local mode where there is one.
fn by_layer(free: &RoutingReport, local: Option<&RoutingReport>, y: fn(&RoutingFigures) -> f64) -> Vec<Series> {
    let series = |name, section: &RoutingReport| Series {
        name,
        points: section.layers.iter().map(|l| (f64::from(l.layer), y(&l.figures))).collect(),
    };
    std::iter::once(series("free-running", free)).chain(local.map(|local| series("local", local))).collect()
}

fn answers(report: &GateReport, page: &mut Page) {
    page.heading("Citations and refusals");
    let some = |figure: &Figure| Some(figure_text(Some(figure)));
    let maybe = |figure: Option<&Figure>| figure.map(|figure| figure_text(Some(figure)));
    type Cell<'a> = &'a dyn Fn(&ModelReport) -> Option<String>;
    let rows: [(&str, Cell<'_>, &str); 16] = [
        ("citation precision", &|m| some(&m.citations.precision), "yes"),
        ("the same, mean of answers", &|m| some(&m.citations.precision_macro), "no"),
        ("citation recall", &|m| some(&m.citations.recall), "yes"),
        ("the same, mean of prompts", &|m| some(&m.citations.recall_macro), "no"),
        ("citations of relevant chunks", &|m| maybe(m.citations.support_precision.as_ref()), "no"),
        ("contested: citations that hold", &|m| maybe(m.citations.contested.as_ref().map(|c| &c.precision)), "no"),
        ("contested: conflict disclosed", &|m| maybe(m.citations.contested.as_ref().map(|c| &c.disclosed)), "no"),
        ("contested: one side only", &|m| maybe(m.citations.contested.as_ref().map(|c| &c.one_sided)), "no"),
        ("contested: refused", &|m| maybe(m.refusal.contested_refused.as_ref()), "no"),
        ("F1 of refusing", &|m| some(&m.refusal.f1), "yes"),
        ("mean F1 of refusing and answering", &|m| some(&m.refusal.macro_f1), "no"),
        ("indeterminate: refused", &|m| some(&m.refusal.must_refuse), "yes"),
        ("resolved: answered", &|m| some(&m.refusal.must_answer), "yes"),
        ("resolved: refused", &|m| some(&m.refusal.over_refusal), "no"),
        ("tokens of an answer, mean", &|m| Some(format!("{:.1}", m.answer_tokens)), "no"),
        ("answers cut off by their limit", &|m| Some(m.cut_off.to_string()), "no"),
    ];
    let rows = rows.map(|(name, of, gated)| {
        let text = |model| of(model).unwrap_or_else(|| "nothing to measure on".to_owned());
        (Tone::Plain, [name.to_owned(), text(&report.student), text(&report.teacher), gated.to_owned()])
    });
    page.table(["figure", "student", "teacher", "gated"], rows);
}

fn perturbed(stability: &Stability, page: &mut Page) {
    page.heading("With a part of the evidence gone");
    let how = match stability.perturbation.removal {
        Removal::Random => "at random",
        Removal::StratifiedBySource => "the same share of every source",
        Removal::MostFragileFirst => "the most fragile first",
    };
    page.text(format!(
        "{:.0} % of the chunks removed, {how} (seed {}): {} chunks of {} prompts. The figures are those of the {} of {} prompts \
         whose label is what it was. {}",
        100.0 * stability.perturbation.fraction,
        stability.perturbation.seed,
        stability.chunks_removed,
        stability.prompts_touched,
        stability.prompts_surviving,
        stability.prompts,
        if stability.stable {
            "Stable: every gate passes and no figure moves by more than 0.05."
        } else {
            "Not stable: a gate does not pass, or a figure moves by more than 0.05."
        },
    ));
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let rows = stability.figures.iter().map(|figure| {
        let cells = [
            figure.figure.clone(),
            format!("{:.4}", figure.before),
            format!("{:.4}", figure.after),
            format!("{:+.4}", figure.after - figure.before),
            yes(figure.passes),
            yes(figure.stable),
        ];
        (if figure.stable { Tone::Plain } else { Tone::Bad }, cells)
    });
    page.table(["figure", "before", "after", "change", "passes after", "stable"], rows);
}

fn labelled(labels: &LabelFigures, page: &mut Page) {
    page.heading("Automatic labels");
    page.text(match &labels.accuracy {
        Some(accuracy) => format!(
            "Labels made from the evidence agree with the suite's own, which gate, in {}.",
            figure_text(Some(accuracy))
        ),
        None => "The suite has no labels: those made from the evidence gate.".to_owned(),
    });
    let name = |label: Option<Label>| label.map_or("unlabelled", Label::name).to_owned();
    let confusion = labels.confusion.iter().map(|cell| {
        let tone = if cell.from == cell.to { Tone::Plain } else { Tone::Bad };
        (tone, [name(cell.from), name(cell.to), cell.prompts.to_string()])
    });
    page.table(["the suite's label", "automatic label", "prompts"], confusion);
    let sensitivity = labels.sensitivity.iter().map(|row| {
        let moves = row.moves.iter().map(|m| format!("{} {} to {}", m.prompts, name(m.from), name(m.to)));
        let moves = moves.collect::<Vec<_>>().join(", ");
        (Tone::Plain, [row.threshold.to_owned(), row.value.to_string(), row.flips.to_string(), moves])
    });
    page.table(["threshold", "moved to", "labels that flip", "from and to"], sensitivity);
}

fn identities(report: &GateReport, page: &mut Page) {
    page.heading("What was run");
    let (suite, run) = (&report.suite, &report.run);
    let LabelCounts { resolved, contested, indeterminate, unlabelled } = suite.counts;
    let prompts = format!(
        "{}: {} prompts ({resolved} resolved, {contested} contested, {indeterminate} indeterminate, {unlabelled} unlabelled)",
        suite.name, suite.prompts
    );
    let time = format!("{:.1} s, {:.3} s per prompt, {} threads", run.seconds, run.seconds_per_prompt, run.threads);
    let facts = [
        ("suite", prompts),
        ("suite, BLAKE3", suite.identity.clone()),
        ("teacher, BLAKE3", report.teacher.identity.clone()),
        ("student, BLAKE3", report.student.identity.clone()),
        ("computed with", report.settings.compute.clone()),
        ("tokens of an answer, at most", report.settings.max_new_tokens.to_string()),
        ("labels from the evidence", report.settings.label_thresholds.to_string()),
        ("refused when an answer holds", report.settings.refusal_signals.join("; ")),
        ("samples of a figure, at least", report.settings.thresholds.min_samples.to_string()),
        ("finished", run.finished.clone()),
        ("time", time),
    ];
    let files = run.files.iter().map(|(role, path)| (role.as_str(), path.clone()));
    let rows = facts.into_iter().chain(files).map(|(what, value)| (Tone::Plain, [what.to_owned(), value]));
    page.table(["what", "value"], rows);
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn runs_are_joined() {
        assert_eq!(ranges(&[3, 5, 6, 7, 9]), "3, 5-7, 9");
        assert_eq!(ranges(&[]), "");
    }
}
