//! Whether a student's final hidden states point where its teacher's do.

/// The cosine of each row of two columns `[n, width]`; `None` for a row of zeros, which points nowhere.
///
/// ```
/// use behavior_eval::coherence::cosines;
/// let (teacher, student) = ([3.0, 4.0, 1.0, 0.0, 1.0, 1.0], [6.0, 8.0, 0.0, 2.0, 0.0, 0.0]);
/// assert_eq!(cosines(&teacher, &student, 2), [Some(1.0), Some(0.0), None]);
/// ```
///
/// # Panics
/// When the columns differ in length or are no whole number of rows.
#[must_use]
pub fn cosines(teacher: &[f32], student: &[f32], width: usize) -> Vec<Option<f64>> {
    assert!(teacher.len() == student.len() && teacher.len().is_multiple_of(width), "columns of [n, {width}]");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let cosine = |(t, s): (&[f32], &[f32])| {
        // One root of the product: equal rows give exactly 1.
        let scale = (dot(t, t) * dot(s, s)).sqrt();
        (scale > 0.0).then(|| (dot(t, s) / scale).clamp(-1.0, 1.0))
    };
    teacher.chunks_exact(width).zip(student.chunks_exact(width)).map(cosine).collect()
}
