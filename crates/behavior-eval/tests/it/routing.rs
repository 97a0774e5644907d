//! The routing gate on scripted models: itself, corrupted on purpose, and in local mode.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::gates::{GateError, RoutingFigures, RoutingGate, RoutingReport, agreement};
use behavior_eval::model::{
    Answer, AskedPrompt, ModelError, Role, RoutingTable, Run, ScriptedSubject, Subject, SubjectInfo, Want,
    route_checked, run_checked,
};
use behavior_eval::stats::Figure;

const PROMPTS: [&str; 5] = ["alpha", "the second one", "third", "a fourth, longer than the others", "end."];

fn run(subject: &mut ScriptedSubject, prompt: &str, want: &Want) -> Run {
    let place = AskedPrompt { role: Role::Student, prompt_id: prompt };
    let tokens = subject.encode("", prompt).unwrap();
    run_checked(subject, place, &tokens, want, &mut |_, _| Ok(())).unwrap()
}

/// The report, and the figures of each prompt.
fn gate(student: &mut ScriptedSubject) -> (RoutingReport, Vec<RoutingFigures>) {
    let mut teacher = ScriptedSubject::new("teacher");
    let mut gate = RoutingGate::new(&teacher.info().moe_layers.clone());
    let prompts = PROMPTS.map(|prompt| {
        let (t, s) = (run(&mut teacher, prompt, &Want::default()), run(student, prompt, &Want::default()));
        gate.push(prompt, &t.routing, &s.routing).unwrap()
    });
    (gate.finish().unwrap(), prompts.to_vec())
}

/// The agreement of these prompts, with the interval of drawing prompts anew.
fn by_prompt(prompts: &[RoutingFigures]) -> Figure {
    agreement(prompts.iter().map(|figures| figures.agreement)).unwrap()
}

#[test]
fn a_model_against_itself_agrees_exactly() {
    let (report, prompts) = gate(&mut ScriptedSubject::new("teacher"));
    let figures = prompts.iter().chain(report.layers.iter().map(|l| &l.figures));
    for f in figures.chain([&report.figures]) {
        assert_eq!(
            (f.agreement.value, f.overlap, f.mass, f.top1.value, f.margin_correlation),
            (1.0, 1.0, 1.0, 1.0, Some(1.0))
        );
    }
    let figure = by_prompt(&prompts);
    assert_eq!((figure.value, figure.high95, figure.n), (1.0, 1.0, PROMPTS.len() as u64));
}

/// Every 4th case of the middle layer is wrong: of `n` tokens in 3 layers, `n / 12` of all cases.
#[test]
fn corrupted_routes_are_missed_exactly_and_found_where_they_are() {
    let mut wrong = 0u64;
    let tokens: usize = PROMPTS.iter().map(|p| p.len() + 2).sum();
    let (counter, count) = std::sync::mpsc::channel();
    let mut cases = 0u64;
    let mut student = ScriptedSubject::new("student").misrouting(move |layer, _| {
        let bad = layer == 1 && {
            cases += 1;
            cases.is_multiple_of(4)
        };
        if bad {
            counter.send(()).unwrap();
        }
        bad
    });
    let (report, prompts) = gate(&mut student);
    drop(student);
    wrong += count.iter().count() as u64;
    let n = 3 * tokens as u64;
    assert_eq!(wrong, tokens as u64 / 4);
    let f = &report.figures;
    assert_eq!((f.agreement.count, f.agreement.n), (n - wrong, n));
    assert_eq!(f.agreement.value, (n - wrong) as f64 / n as f64);
    // One of two experts is right in a wrong case.
    assert_eq!(f.overlap, (2 * n - wrong) as f64 / (2 * n) as f64);
    assert!(f.mass < 1.0 && f.mass > f.agreement.value);
    assert_eq!(report.worst_layer, 2);
    assert_eq!(report.layers.iter().map(|l| l.figures.agreement.value == 1.0).collect::<Vec<_>>(), [true, false, true]);
    let interval = by_prompt(&prompts);
    assert!(interval.low95 < f.agreement.value && f.agreement.value < interval.high95);
}

#[test]
fn a_router_fed_the_teacher_s_states_decides_as_in_the_run() {
    let mut teacher = ScriptedSubject::new("teacher");
    let want = Want { router_inputs: true, ..Want::default() };
    let run = run(&mut teacher, PROMPTS[1], &want);
    let inputs = run.router_inputs.unwrap();
    let place = AskedPrompt { role: Role::Student, prompt_id: "p" };
    let local = route_checked(&mut teacher, place, &inputs, run.routing.n).unwrap();
    assert_eq!(local, run.routing);
    assert!(route_checked(&mut teacher, place, &inputs[1..], run.routing.n).is_err());
}

#[test]
fn nothing_and_what_does_not_fit_are_errors() {
    let empty = RoutingGate::new(&[1]).finish().unwrap_err();
    assert!(matches!(empty, GateError::NoCases), "{empty}");
    let table = |n: usize, k: usize| {
        let mut table = RoutingTable::new(n, k);
        let ids: Vec<u32> = (0..n).flat_map(|_| 0..u32::try_from(k).unwrap()).collect();
        table.push_layer(&ids, &vec![0.5; n * k], &vec![0.1; n]);
        table
    };
    let mut gate = RoutingGate::new(&[1]);
    let fails = |gate: &mut RoutingGate, t: &RoutingTable, s: &RoutingTable| {
        let error = gate.push("p-9", t, s).unwrap_err().to_string();
        assert!(error.contains("p-9"), "{error}");
    };
    fails(&mut gate, &table(3, 2), &table(4, 2));
    fails(&mut gate, &table(3, 2), &table(3, 1));
    fails(&mut gate, &table(0, 2), &table(0, 2));
    let mut torn = table(3, 2);
    torn.weights.pop();
    fails(&mut gate, &table(3, 2), &torn);
    gate.push("p-9", &table(3, 2), &table(3, 2)).unwrap();
}

/// A subject that breaks its contract in one way.
struct Broken(ScriptedSubject, Spoil);

/// A change to a run.
type Spoil = fn(&mut Run);

impl Subject for Broken {
    fn info(&self) -> &SubjectInfo {
        self.0.info()
    }
    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        self.0.encode(system, user)
    }
    fn generate(&mut self, prompt: &[u32], n: usize) -> Result<Answer, ModelError> {
        self.0.generate(prompt, n)
    }
    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
        let mut run = self.0.run(tokens, want, logits)?;
        (self.1)(&mut run);
        Ok(run)
    }
    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        self.0.route(layer, inputs)
    }
}

#[test]
fn impossible_runs_are_named() {
    let want = Want { scores: true, router_inputs: true, final_hidden: true, logits_from: Some(1) };
    let place = AskedPrompt { role: Role::Teacher, prompt_id: "p-3" };
    let outcome = |spoil: Spoil| {
        let mut subject = Broken(ScriptedSubject::new("x"), spoil);
        run_checked(&mut subject, place, &[1, 2, 3], &want, &mut |_, _| Ok(())).map(drop)
    };
    outcome(|_| {}).unwrap();
    let spoils: [(Spoil, &str); 8] = [
        (|run| run.routing.ids[0] = 8, "expert 8 of 8"),
        (|run| run.routing.ids.swap(0, 1), "do not ascend"),
        (|run| run.routing.weights[2] = f32::NAN, "NaN as a weight"),
        (|run| run.routing.margins[1] = f32::INFINITY, "inf as a weight or margin"),
        (|run| run.routing.margins.truncate(1), "the routing"),
        (|run| run.scores = None, "nothing as router scores"),
        (|run| run.final_hidden.as_mut().unwrap().truncate(11), "11 numbers instead of 12"),
        (|run| run.router_inputs.as_mut().unwrap()[5] = f32::NAN, "NaN as router inputs"),
    ];
    for (spoil, says) in spoils {
        let error = outcome(spoil).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("the teacher") && error.contains("p-3"), "{error}");
    }
}

/// `fixtures/generators/gen_routing.py` worked these figures out with fractions.
#[test]
fn the_figures_equal_an_independent_computation() {
    let text = std::fs::read_to_string(fixtures::path("goldens/gates/routing.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let layers: Vec<u32> = list(&golden["layers"]).iter().map(number).collect();
    let table = |side: &serde_json::Value| {
        let side = list(side);
        let mut table = RoutingTable::new(side[0].as_array().unwrap().len(), 4);
        for token in side.iter().flat_map(list) {
            let ids: Vec<u32> = list(&token["ids"]).iter().map(number).collect();
            let weights: Vec<f32> = list(&token["weights"]).iter().map(|w| w.as_f64().unwrap() as f32).collect();
            table.push_layer(&ids, &weights, &[token["margin"].as_f64().unwrap() as f32]);
        }
        assert_eq!(table.defect(16), None);
        table
    };
    let mut gate = RoutingGate::new(&layers);
    let mut prompts = Vec::new();
    for prompt in list(&golden["prompts"]) {
        let id = prompt["prompt_id"].as_str().unwrap();
        prompts.push(gate.push(id, &table(&prompt["teacher"]), &table(&prompt["student"])).unwrap());
    }
    let report = gate.finish().unwrap();
    let check = |got: &RoutingFigures, want: &serde_json::Value| {
        assert_eq!(Some(got.agreement.count), want["same"].as_u64());
        assert_eq!(Some(got.agreement.n), want["n"].as_u64());
        assert_eq!(Some(got.top1.count), want["top1"].as_u64());
        let close =
            |got: f64, want: &serde_json::Value| assert!((got - want.as_f64().unwrap()).abs() < 1e-12, "{got} {want}");
        close(got.overlap, &want["overlap"]);
        close(got.mass, &want["mass"]);
        close(got.margin_correlation.unwrap(), &want["margin_correlation"]);
        close(got.agreement.low95, &want["wilson"][0]);
        close(got.agreement.high95, &want["wilson"][1]);
    };
    let want = &golden["want"];
    check(&report.figures, &want["all"]);
    assert_eq!(report.worst_layer, number(&want["worst_layer"]));
    assert_eq!((report.layers.len(), prompts.len()), (3, 12));
    report.layers.iter().zip(list(&want["layers"])).for_each(|(layer, want)| check(&layer.figures, &want));
    prompts.iter().zip(list(&want["prompts"])).for_each(|(prompt, want)| check(prompt, &want));
    let interval = by_prompt(&prompts);
    let wilson = &report.figures.agreement;
    assert!(interval.low95 < wilson.value && wilson.value < interval.high95 && interval.n == 12);
}
