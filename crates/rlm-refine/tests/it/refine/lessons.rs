//! Lessons of a run: which experts drift, and larger steps for them.

use rlm_refine::policy::{Finding, KeyLesson, LearnedBy, Part, Policy, PolicyStore};
use rlm_refine::train::{Focus, expert_drift, held_out_windows};

use super::*;

/// The student with the scales of one expert's matrix halved.
fn damaged(pair: &Pair, tensor: &str, expert: usize) -> PathBuf {
    let mut bytes = std::fs::read(&pair.student).unwrap();
    let file = GgufFile::open(&pair.student).unwrap();
    let index = file.tensors().iter().position(|info| info.name == tensor).unwrap();
    let stored = file.bytes(index).unwrap();
    let start = stored.as_ptr() as usize - file.bytes(0).unwrap().as_ptr() as usize;
    let of_expert = stored.len() / file.tensors()[index].shape[0];
    // The first tensor's place in the file follows from its first bytes.
    let first = bytes.windows(64).position(|window| window == &file.bytes(0).unwrap()[..64]).unwrap();
    let range = first + start + expert * of_expert..first + start + (expert + 1) * of_expert;
    for block in bytes[range].chunks_exact_mut(66) {
        let scale = ternary_core::f16::from_le_bytes([block[64], block[65]]).to_f32();
        block[64..].copy_from_slice(&ternary_core::f16::from_f32(0.5 * scale).to_le_bytes());
    }
    let path = pair.student.with_file_name("damaged.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_expert_that_was_damaged_drifts_more_and_a_teacher_does_not_drift_from_itself() {
    let (pair, pool) = (pair(), Pool::new(2).unwrap());
    let windows = &pair.calibration.windows()[..12];
    let drift = |student: &ModelFiles| expert_drift([student, &pair.teacher], windows, &pool).unwrap();
    let own = drift(&pair.teacher);
    let moe = pair.teacher.config.moe.as_ref().unwrap();
    assert!(own.iter().all(|expert| expert.relative_error == 0.0));
    assert_eq!(own.len(), 4 * moe.router.n_experts, "four layers have experts");
    let tokens: usize = windows.iter().map(Vec::len).sum();
    assert_eq!(own.iter().map(|expert| expert.tokens).sum::<usize>(), 4 * moe.router.top_k * tokens);

    let before = drift(&ModelFiles::open(&pair.student).unwrap());
    let busiest = before.iter().filter(|expert| expert.layer == 4).max_by_key(|expert| expert.tokens).unwrap();
    let damaged = damaged(&pair, "blk.4.ffn_down_exps.weight", busiest.expert);
    let after = drift(&ModelFiles::open(&damaged).unwrap());
    let rise = |i: usize| after[i].relative_error - before[i].relative_error;
    let most = (0..before.len()).max_by(|&a, &b| rise(a).total_cmp(&rise(b))).unwrap();
    assert_eq!((before[most].layer, before[most].expert), (4, busiest.expert), "{before:?} {after:?}");
    assert!(before.iter().all(|expert| expert.relative_error.is_finite() && expert.relative_error >= 0.0));
}

#[test]
fn a_focus_moves_the_named_experts_further_and_no_others() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let options = || TrainOptions { steps: 1, groups: vec![Group::Scales], lr: 5e-3, ..options() };
    let named = Focus { experts: vec![(3, 5)], factor: 8.0, n_experts: 8 };
    let [plain, focused] = [("plain.gguf", None), ("focused.gguf", Some(named))].map(|(name, focus)| {
        let out = dir.path().join(name);
        run(&pair, TrainOptions { focus, ..options() }, &out, &mut |_| {}).unwrap();
        GgufFile::open(&out).unwrap()
    });
    let old = GgufFile::open(&pair.student).unwrap();
    for (i, info) in old.tensors().iter().enumerate() {
        let [before, plain, focused] = [&old, &plain, &focused].map(|file| file.bytes(i).unwrap());
        if !(info.name.starts_with("blk.3.") && info.name.contains("_exps.")) {
            assert!(plain[..] == focused[..], "{}", info.name);
            continue;
        }
        let of_expert = before.len() / info.shape[0];
        for expert in 0..info.shape[0] {
            let range = expert * of_expert..(expert + 1) * of_expert;
            let moved = |bytes: &[u8]| -> f32 {
                let scale = |block: &[u8]| ternary_core::f16::from_le_bytes([block[64], block[65]]).to_f32();
                let blocks = bytes[range.clone()].chunks_exact(66).zip(before[range.clone()].chunks_exact(66));
                blocks.map(|(new, old)| (scale(new) - scale(old)).abs()).sum()
            };
            let [plain, focused] = [&plain, &focused].map(|bytes| moved(bytes));
            assert!(if expert == 5 { focused > 4.0 * plain && plain > 0.0 } else { focused == plain }, "{}", info.name);
        }
    }
}

#[test]
fn windows_that_are_held_out_are_few_and_spread() {
    let windows: Vec<Vec<u32>> = (0..1000).map(|i| vec![i]).collect();
    let held_out = held_out_windows(&windows);
    assert_eq!(held_out.len(), 16);
    assert_eq!([held_out[0][0], held_out[1][0]], [31, 93], "one of 62");
}

#[test]
fn each_lesson_that_a_store_keeps_is_announced_with_its_figures() {
    let dir = tempfile::tempdir().unwrap();
    let store = PolicyStore::open(&dir.path().join("lessons.redb")).unwrap();
    let lesson = |finding, after| KeyLesson {
        student: "s".to_owned(),
        learned_by: LearnedBy::Refinement,
        about: Part::Expert { layer: 3, expert: 5 },
        finding,
        before: 0.25,
        after,
        n: 12,
    };
    let lessons = [lesson(Finding::ExpertDrifts, None), lesson(Finding::RouterRepaired, Some(0.5))];
    let seen = events(|| store.append("t", &lessons.clone().map(Policy::of_lesson)).unwrap());
    let [(first, drifts), (second, repaired)] = &seen[..] else { panic!("one event per lesson: {seen:?}") };
    assert_eq!([first, second], ["KeyLessonExtracted"; 2]);
    for (field, value) in [("checkpoint", "\"t\""), ("part", "\"layer 3, expert 5\""), ("before", "0.25"), ("n", "12")]
    {
        assert_eq!((&*drifts[field], &*repaired[field]), (value, value), "{field}");
    }
    assert_eq!((&*drifts["finding"], drifts.get("after")), ("\"outputs drift\"", None));
    assert_eq!((&*repaired["finding"], &*repaired["after"]), ("\"router repaired\"", "0.5"));
}
