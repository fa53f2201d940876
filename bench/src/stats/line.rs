//! Lines of least squares.

/// A straight line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Growth in y for each unit of x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// Share of the variance of y that the line explains, from 0 to 1.
    pub r_squared: f64,
}

/// The line of least squares through `(x, y)`; `None` with fewer than two different x.
///
/// ```
/// use echobench::stats::fit_line;
///
/// // Memory of a server with 10, 100 and 1000 connections: 8 KiB for each, and 2 MiB for itself.
/// let memory = |connections: f64| 8192.0 * connections + 2_097_152.0;
/// let points = [10.0, 100.0, 1000.0].map(|connections| (connections, memory(connections)));
///
/// let line = fit_line(&points).unwrap();
/// assert!((line.slope - 8192.0).abs() < 1e-6);
/// assert!((line.r_squared - 1.0).abs() < 1e-12);
/// ```
#[must_use]
pub fn fit_line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;

    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let yy: f64 = points.iter().map(|(_, y)| (y - mean_y).powi(2)).sum();
    let xy: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    if xx <= 0.0 || !xx.is_finite() {
        return None;
    }

    let slope = xy / xx;
    let r_squared = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
    Some(Line {
        slope,
        intercept: mean_y - slope * mean_x,
        r_squared,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let points = [1.0, 2.0, 5.0, 9.0].map(|x| (x, 3.0 * x + 7.0));
        let line = fit_line(&points).unwrap();
        assert!((line.slope - 3.0).abs() < 1e-12 && (line.intercept - 7.0).abs() < 1e-12);
        assert!((line.r_squared - 1.0).abs() < 1e-12);

        let scattered = fit_line(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]).unwrap();
        assert!(scattered.slope.abs() < 1e-12 && scattered.r_squared < 1e-12);

        assert_eq!(fit_line(&[(1.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit_line(&[]), None);
    }
}
