//! The records of an event file; names and tags are those of TensorBoard's `event.proto` and `summary.proto`.

use super::super::Histogram;
use crate::{plot::RgbImage, time::unix_time};
use prost::{Message, Oneof};

/// What an event file begins with.
const FILE_VERSION: &str = "brain.Event:2";
/// RGB.
const COLORSPACE: i32 = 3;

/// A record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Unix time in seconds.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    pub(super) what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(oneof = "Kind", tags = "2, 4, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "4")]
    Image(Image),
    #[prost(message, tag = "5")]
    Histogram(HistogramProto),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded: Vec<u8>,
}

/// Bins by their upper edges. The moments are those of the bins' centres.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HistogramProto {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

impl Event {
    /// The first event of a file.
    pub(super) fn version() -> Self {
        Self { wall_time: unix_time(), step: 0, what: Some(What::FileVersion(FILE_VERSION.to_owned())) }
    }

    /// The values of a step; none where there are none.
    pub(super) fn new(step: u64, values: Vec<(String, Kind)>) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let value = values.into_iter().map(|(tag, kind)| Value { tag, kind: Some(kind) }).collect();
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        Some(Self { wall_time: unix_time(), step, what: Some(What::Summary(Summary { value })) })
    }
}

impl Image {
    /// `image`, of which `png` is the file.
    pub(super) fn new(image: &RgbImage, png: Vec<u8>) -> Self {
        Self { height: image.height() as i32, width: image.width() as i32, colorspace: COLORSPACE, encoded: png }
    }
}

impl From<&Histogram> for HistogramProto {
    fn from(histogram: &Histogram) -> Self {
        let edges = histogram.edges();
        let counts = || histogram.counts().iter().map(|count| *count as f64);
        let centres = || edges.windows(2).map(|edge| (edge[0] + edge[1]) / 2.0);
        let moment =
            |power: i32| centres().zip(counts()).map(|(centre, count)| centre.powi(power) * count).sum::<f64>();
        // TensorBoard begins the first bin at the smallest value.
        Self {
            min: edges.first().copied().unwrap_or_default(),
            max: edges.last().copied().unwrap_or_default(),
            num: counts().sum(),
            sum: moment(1),
            sum_squares: moment(2),
            bucket_limit: edges.get(1..).unwrap_or_default().to_vec(),
            bucket: counts().collect(),
        }
    }
}
