//! Values that go to LeRobot as they are.

use serde_json::Value;

/// A value as LeRobot's command line reads it: text as it is, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
