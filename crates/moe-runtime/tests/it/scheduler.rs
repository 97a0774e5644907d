//! Jobs that share steps: the bits of each, fairness, cancellation, limits and the bounds on rows, with a clock of numbers.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mla_attention::CacheType;
use moe_runtime::{
    AnswerOptions, CraftsmanModel, Interrupt, Job, JobEvent, JobStart, LoopConfig, Priority, PromptCache,
    PromptCacheOptions, PromptKey, QueueLimits, Refusal, Sampler, SamplerConfig, Scheduler, SchedulerOptions, Session,
    Speculation, StepCosts, StopReason, Work,
};

use crate::drafts::Oracle;
use crate::golden::load_changed;

const OPTIONS: SchedulerOptions = SchedulerOptions {
    slots: 2,
    n_ctx: 256,
    cache_type: CacheType::F16,
    chunk: 32,
    prompt_rows: 64,
    decode_share: 0.5,
    limits: QueueLimits { waiting: 64, account_waiting: 64, account_running: 64, account_tokens_per_minute: None },
};

const NO_LOOPS: LoopConfig = LoopConfig { max_period: 0, min_repeats: 2, min_tokens: 0 };

/// The news that the owner of a job got.
#[derive(Clone, Debug, Default)]
struct Seen {
    start: Option<JobStart>,
    tokens: Vec<u32>,
    /// The bits of all logits, of the prompt and of the answer.
    bits: Vec<u32>,
    embedding: Vec<f32>,
    end: Option<StopReason>,
    error: Option<String>,
}

type Owner = Arc<Mutex<Seen>>;

fn seen(owner: &Owner) -> Seen {
    owner.lock().expect("no test panics inside").clone()
}

fn job(prompt: Vec<u32>, work: Work) -> (Job, Owner) {
    let owner = Owner::default();
    let writes = owner.clone();
    let on_event = Box::new(move |event: JobEvent<'_>| {
        let mut seen = writes.lock().expect("no test panics inside");
        assert!(seen.end.is_none() && seen.error.is_none(), "an event after the last one: {event:?}");
        match event {
            JobEvent::Started(start) => seen.start = Some(start),
            JobEvent::PromptLogits { logits, .. } => seen.bits.extend(logits.iter().map(|v| v.to_bits())),
            JobEvent::Token { token, logits } => {
                seen.tokens.push(token);
                seen.bits.extend(logits.iter().map(|v| v.to_bits()));
            }
            JobEvent::Embedding(vector) => seen.embedding = vector.to_vec(),
            JobEvent::Ended(reason) => seen.end = Some(reason),
            JobEvent::Failed(error) => seen.error = Some(error.to_string()),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let (priority, affinity, account) = (Priority::Interactive, String::new(), String::new());
    (Job { prompt, work, priority, affinity, account, interrupt: Interrupt::new(), on_event }, owner)
}

fn answer(config: SamplerConfig, max_tokens: usize) -> AnswerOptions {
    let sampler = Sampler::new(config).expect("valid settings");
    AnswerOptions { sampler, max_tokens, stop: Vec::new(), loops: NO_LOOPS, prompt_logits: false, drafts: None }
}

fn greedy(prompt: Vec<u32>, max_tokens: usize) -> (Job, Owner) {
    job(prompt, Work::Answer(Box::new(answer(SamplerConfig::greedy(), max_tokens))))
}

fn prompt(seed: u32, n: u32) -> Vec<u32> {
    (0..n).map(|p| (p * seed + p * p % 7 + seed) % 500).collect()
}

fn model() -> Arc<CraftsmanModel> {
    load_changed("glm-tiny", |_| {})
}

fn scheduler(options: SchedulerOptions) -> Scheduler {
    Scheduler::new(model(), options).expect("small caches fit")
}

/// Steps until nothing is to compute, a second each; the drafted and the accepted tokens.
fn run(scheduler: &mut Scheduler, now: &mut Duration) -> [usize; 2] {
    let mut drafts = [0; 2];
    while let Some(report) = scheduler.advance(*now) {
        *now += Duration::from_secs(1);
        drafts[0] += report.draft_rows;
        drafts[1] += report.accepted_rows;
    }
    drafts
}

/// Drafts of a known answer, of which every fourth token is wrong.
fn oracle(answer: &[u32]) -> Speculation {
    let drafter = Oracle { answer: answer.to_vec(), wrong: 4 };
    Speculation::new(Box::new(drafter), StepCosts::new(1000, 0, 1.0), 512)
}

fn submit(scheduler: &Scheduler, job: Job) {
    scheduler.queue().submit(job, Duration::ZERO).expect("the queue has room");
}

#[test]
fn a_job_has_the_bits_it_has_alone_whatever_runs_beside_it() {
    let sampled = SamplerConfig { temperature: 0.8, seed: 7, ..SamplerConfig::default() };
    let make = |answers: Option<&[Seen; 4]>| {
        let drafts = |i: usize| answers.map(|answers| oracle(&answers[i].tokens));
        let greedy = AnswerOptions { drafts: drafts(0), ..answer(SamplerConfig::greedy(), 40) };
        let greedy = job(prompt(3, 100), Work::Answer(Box::new(greedy)));
        let drawn = AnswerOptions { drafts: drafts(1), ..answer(sampled, 20) };
        let drawn = job(prompt(5, 7), Work::Answer(Box::new(drawn)));
        let mut rows = AnswerOptions { drafts: drafts(2), ..answer(SamplerConfig::greedy(), 3) };
        rows.prompt_logits = true;
        let rows = job(prompt(11, 40), Work::Answer(Box::new(rows)));
        let embed = job(prompt(13, 33), Work::Embed);
        [greedy, drawn, rows, embed]
    };
    let alone = make(None).map(|(job, owner)| {
        let mut scheduler = scheduler(SchedulerOptions { slots: 1, ..OPTIONS });
        submit(&scheduler, job);
        run(&mut scheduler, &mut Duration::ZERO.clone());
        seen(&owner)
    });
    // Alone it is what a session computes.
    let mut session = Session::new(model(), 256, CacheType::F16).unwrap();
    let mut logits = session.step(&prompt(3, 100), &mut ()).unwrap().to_vec();
    let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap();
    for &token in &alone[0].tokens {
        assert_eq!(sampler.sample(&logits).unwrap(), token);
        logits = session.step(&[token], &mut ()).unwrap().to_vec();
    }
    session.reset();
    assert_eq!(alone[3].embedding, session.mean_hidden(&prompt(13, 33)).unwrap());
    assert_eq!(alone[2].bits.len(), (40 + 3) * session.model().config().vocab);

    for (slots, chunk, with_drafts) in [(2, 32, false), (1, 50, true), (3, 7, true), (6, 300, true)] {
        let mut scheduler = scheduler(SchedulerOptions { slots, chunk, ..OPTIONS });
        let jobs = make(with_drafts.then_some(&alone));
        let mut owners = Vec::new();
        for (job, owner) in jobs {
            submit(&scheduler, job);
            scheduler.advance(Duration::ZERO);
            let (noise, _) = greedy(prompt(17 + u32::try_from(owners.len()).unwrap(), 50), 30);
            submit(&scheduler, noise);
            owners.push(owner);
        }
        let [drafted, accepted] = run(&mut scheduler, &mut Duration::ZERO.clone());
        assert!(drafted >= accepted && (accepted > 0) == with_drafts, "{accepted} of {drafted}");
        for (i, owner) in owners.iter().enumerate() {
            let got = seen(owner);
            assert!(got.bits == alone[i].bits && got.end.is_some(), "{slots} slots, job {i}: {:?}", got.error);
            assert_eq!(
                (&got.tokens, &got.embedding),
                (&alone[i].tokens, &alone[i].embedding),
                "{slots} slots, job {i}"
            );
        }
        assert_eq!(scheduler.queue().status(), Default::default());
    }
}

#[test]
fn rows_of_a_prompt_ride_with_answers_and_no_more_than_may() {
    let mut scheduler = scheduler(SchedulerOptions { prompt_rows: 10, ..OPTIONS });
    let (first, _) = greedy(prompt(3, 20), 100);
    submit(&scheduler, first);
    let report = scheduler.advance(Duration::ZERO).unwrap();
    assert_eq!((report.prompt_rows, report.answer_rows), (20, 0), "alone it is read at once");
    let (second, owner) = greedy(prompt(5, 64), 4);
    submit(&scheduler, second);
    let mut rows = Vec::new();
    let mut now = Duration::ZERO;
    while seen(&owner).end.is_none() {
        now += Duration::from_millis(100);
        let report = scheduler.advance(now).unwrap();
        assert!(report.answer_rows > 0, "the answer never waits");
        rows.push(report.prompt_rows);
    }
    assert_eq!(rows[..7], [10, 10, 10, 10, 10, 10, 4]);
}

#[test]
fn a_job_begins_with_what_its_slot_holds_and_with_cached_blocks() {
    let model = model();
    let mut options = PromptCacheOptions { memory_bytes: 64 << 20, disk: None };
    for with_cache in [false, true] {
        let mut scheduler = Scheduler::new(model.clone(), SchedulerOptions { slots: 1, ..OPTIONS }).unwrap();
        if with_cache {
            options.memory_bytes += 1;
            let key = key(&model, &scheduler);
            scheduler = scheduler.with_prompt_cache(Some((PromptCache::open(&options).unwrap(), key)));
        }
        let mut cached = Vec::new();
        let mut bits = Vec::new();
        for prompt in [prompt(3, 150), prompt(5, 150), prompt(3, 150), prompt(3, 200)] {
            let work = AnswerOptions { drafts: Some(oracle(&[7; 3])), ..answer(SamplerConfig::greedy(), 3) };
            let (job, owner) = job(prompt, Work::Answer(Box::new(work)));
            submit(&scheduler, job);
            run(&mut scheduler, &mut Duration::ZERO.clone());
            cached.push(seen(&owner).start.unwrap().cached_tokens);
            bits.push(seen(&owner).bits);
        }
        // The second prompt overwrites the slot; the third differs from it at once. 128 = two blocks.
        assert_eq!(cached, if with_cache { [0, 0, 128, 150] } else { [0, 0, 0, 150] });
        assert!(bits[0] == bits[2], "with a cache: {with_cache}");
    }
}

fn key(model: &CraftsmanModel, scheduler: &Scheduler) -> PromptKey {
    PromptKey::new(&[1; 32], model, scheduler.cache_layout(), None)
}

#[test]
fn cancelling_ends_one_job_in_every_phase_and_frees_its_slot() {
    let alone = {
        let mut scheduler = scheduler(SchedulerOptions { slots: 1, ..OPTIONS });
        let (job, owner) = greedy(prompt(3, 30), 40);
        submit(&scheduler, job);
        run(&mut scheduler, &mut Duration::ZERO.clone());
        seen(&owner).tokens
    };
    let mut scheduler = scheduler(OPTIONS);
    let (stays, owner) = greedy(prompt(3, 30), 40);
    submit(&scheduler, stays);
    let mut now = Duration::ZERO;
    let mut step = |scheduler: &mut Scheduler| {
        now += Duration::from_secs(1);
        scheduler.advance(now).expect("there is something to compute");
    };
    step(&mut scheduler);
    // Steps before the cancellation: while it waits, while its prompt is read, while it answers.
    for steps in [0, 1, 8] {
        let (cancelled, other) = greedy(prompt(5, 90), 1000);
        let interrupt = cancelled.interrupt.clone();
        submit(&scheduler, cancelled);
        (0..steps).for_each(|_| step(&mut scheduler));
        let before = seen(&other);
        assert_eq!((before.start.is_some(), before.tokens.is_empty()), (steps > 0, steps < 8), "{steps}");
        interrupt.raise();
        step(&mut scheduler);
        assert_eq!(seen(&other).end, Some(StopReason::Interrupt), "{steps}");
        let status = scheduler.queue().status();
        assert_eq!((status.waiting, status.running), (0, 1), "{steps}");
    }
    run(&mut scheduler, &mut Duration::ZERO.clone());
    assert_eq!(seen(&owner).tokens, alone, "the other job did not notice");
    assert_eq!(scheduler.queue().status().running, 0);
}

#[test]
fn an_owner_ends_its_job_from_an_event() {
    let mut scheduler = scheduler(OPTIONS);
    let (mut job, _) = greedy(prompt(3, 10), 50);
    let ends = Arc::new(Mutex::new((0, None)));
    let writes = ends.clone();
    job.on_event = Box::new(move |event| {
        let mut ends = writes.lock().unwrap();
        match event {
            JobEvent::Token { .. } => ends.0 += 1,
            JobEvent::Ended(reason) => ends.1 = Some(reason),
            _ => {}
        }
        if ends.0 == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    submit(&scheduler, job);
    run(&mut scheduler, &mut Duration::ZERO.clone());
    assert_eq!(*ends.lock().unwrap(), (3, Some(StopReason::Callback)));
}

#[test]
fn answers_end_at_their_limits() {
    let mut scheduler = scheduler(SchedulerOptions { n_ctx: 64, ..OPTIONS });
    let (long, a) = greedy(prompt(3, 60), 100);
    let (none, b) = greedy(prompt(5, 9), 0);
    let (too_long, c) = greedy(prompt(5, 65), 1);
    let (foreign, d) = greedy(vec![1, 9999], 1);
    for job in [long, none, too_long, foreign] {
        submit(&scheduler, job);
    }
    run(&mut scheduler, &mut Duration::ZERO.clone());
    assert_eq!((seen(&a).end, seen(&a).tokens.len()), (Some(StopReason::ContextFull), 5));
    assert_eq!((seen(&b).end, seen(&b).tokens.len()), (Some(StopReason::MaxTokens), 0));
    assert!(seen(&c).error.unwrap().contains("65 tokens do not fit the context of 64"));
    assert!(seen(&d).error.unwrap().contains("token 9999"));
    assert_eq!(scheduler.queue().status(), Default::default());
}

#[test]
fn refusals_name_the_limit_and_the_measured_time() {
    let limits =
        QueueLimits { waiting: 3, account_waiting: 2, account_running: 1, account_tokens_per_minute: Some(60) };
    let mut scheduler = scheduler(SchedulerOptions { slots: 2, limits, ..OPTIONS });
    let submit = |scheduler: &Scheduler, account: &str, now| {
        let (mut job, owner) = greedy(prompt(3, 8), 12);
        job.account = account.to_owned();
        scheduler.queue().submit(job, now).map(|()| owner)
    };
    let zero = Duration::ZERO;
    submit(&scheduler, "a", zero).unwrap();
    submit(&scheduler, "a", zero).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(submit(&scheduler, "a", zero).unwrap_err(), Refusal::AccountFull { waiting: 2, retry_after: second });
    let b = submit(&scheduler, "b", zero).unwrap();
    assert_eq!(submit(&scheduler, "c", zero).unwrap_err(), Refusal::Full { waiting: 3, retry_after: second });
    scheduler.advance(zero);
    assert!(seen(&b).start.is_some(), "b passes the second job of a, which may run one at a time");
    assert_eq!(scheduler.queue().status().waiting, 1);
    // 12 steps of 2 s each: 24 s for a job, 2 slots.
    let mut now = zero;
    while scheduler.advance(now).is_some() {
        now += Duration::from_secs(2);
    }
    for account in ["c", "d", "e"] {
        submit(&scheduler, account, now).unwrap();
    }
    let Refusal::Full { retry_after, .. } = submit(&scheduler, "f", now).unwrap_err() else { panic!("not full") };
    assert!((40..=48).contains(&retry_after.as_secs()), "4 jobs of 22 s in 2 slots: {retry_after:?}");
    run(&mut scheduler, &mut now);
    // A job computes 12 tokens or more, and all at one moment: no time pays for them.
    for _ in 0..6 {
        if submit(&scheduler, "a", now).is_err() {
            break;
        }
        while scheduler.advance(now).is_some() {}
    }
    let refusal = submit(&scheduler, "a", now).unwrap_err();
    let Refusal::AccountTokens { per_minute: 60, retry_after } = refusal else { panic!("{refusal}") };
    submit(&scheduler, "a", now + retry_after).unwrap();
    scheduler.queue().close();
    assert_eq!(submit(&scheduler, "z", now).unwrap_err(), Refusal::Closed);
    assert!(scheduler.queue().wait(), "a job waits still");
    scheduler.end_all(now);
    assert!(!scheduler.queue().wait(), "closed and empty");
}

#[test]
fn a_batch_of_one_key_does_not_keep_others_waiting() {
    let mut scheduler = scheduler(SchedulerOptions { slots: 1, ..OPTIONS });
    let order = Arc::new(Mutex::new(Vec::new()));
    for (priority, key, name) in [
        (Priority::Batch, "x", "batch"),
        (Priority::Interactive, "a", "a1"),
        (Priority::Interactive, "a", "a2"),
        (Priority::Interactive, "b", "b1"),
    ] {
        let (mut job, _) = greedy(prompt(3, 5), 2);
        (job.priority, job.affinity) = (priority, key.to_owned());
        let order = order.clone();
        job.on_event = Box::new(move |event| {
            if let JobEvent::Ended(_) = event {
                order.lock().unwrap().push(name);
            }
            ControlFlow::Continue(())
        });
        submit(&scheduler, job);
    }
    run(&mut scheduler, &mut Duration::ZERO.clone());
    assert_eq!(*order.lock().unwrap(), ["a1", "b1", "a2", "batch"]);
}
