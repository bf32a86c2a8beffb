//! What this project knows of the policies that the LeRobot plugin `lerobot_policy_hlrp` registers: the fields of the one that shares
//! its network with stage 2, and which of them belong together.

use crate::lerobot::PassedOn;
use crate::rules::{Checked, not_negative, require};
use hlrp_config::Problem;
use serde_json::Value;

/// The policy that shares its network with stage 2.
const SHARED_POLICY: &str = "hlrp_smolvla_shared";

/// Its fields that take one of a few values.
const CHOICES: [(&str, &[&str]); 3] = [
    ("init_mode", &["artifact", "scratch", "smolvla"]),
    ("stage3_training_mode", &["action", "latent", "multitask"]),
    ("laq_weights", &["trained", "random"]),
];

/// Its fields that are factors of a loss.
const LOSS_WEIGHTS: [&str; 2] = ["action_loss_weight", "latent_loss_weight"];

/// The field that names an artifact of stage 2.
pub const ARTIFACT_FIELD: &str = "stage2_artifact";
/// The field that names a checkpoint of stage 1.
pub const TEACHER_FIELD: &str = "laq_checkpoint_path";
/// The field that names the labels of a dataset, which are there instead of a teacher.
const LABELS_FIELD: &str = "latent_label_prefix";
/// The field that names a SmolVLA checkpoint of LeRobot.
const SMOLVLA_FIELD: &str = "smolvla_checkpoint";

/// A field of a policy that names a folder.
#[derive(Debug, Clone, Copy)]
pub struct FolderField {
    /// Its name below `lerobot.policy`.
    pub name: &'static str,
    /// The files one of which makes a folder what it has to be; none where no single file does.
    pub files: &'static [&'static str],
}

/// The file that describes an artifact of stage 2, newest name first.
pub const ARTIFACT_FILES: &[&str] = &["artifact.json", "manifest.json"];

/// The fields that name folders. Those that are given must exist before anything starts.
pub const FOLDER_FIELDS: [FolderField; 3] = [
    FolderField { name: ARTIFACT_FIELD, files: ARTIFACT_FILES },
    FolderField { name: SMOLVLA_FIELD, files: &["config.json"] },
    FolderField { name: TEACHER_FIELD, files: &[] },
];

/// A policy that stage 3 trains, as far as other stages have to do with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct PluginPolicy<'a> {
    /// `lerobot.policy_type`
    pub policy_type: Option<&'a str>,
    /// `lerobot.policy.init_mode`
    pub init_mode: Option<&'a str>,
    /// `lerobot.policy.stage3_training_mode`
    pub training_mode: Option<&'a str>,
    /// `lerobot.policy.latent_label_prefix`
    pub label_prefix: Option<&'a str>,
}

impl<'a> PluginPolicy<'a> {
    /// The policy of section `lerobot`.
    pub fn new(policy_type: Option<&'a str>, fields: &'a PassedOn) -> Self {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        Self {
            policy_type,
            init_mode: text("init_mode"),
            training_mode: text("stage3_training_mode"),
            label_prefix: text(LABELS_FIELD),
        }
    }

    fn is_shared(&self) -> bool {
        self.policy_type == Some(SHARED_POLICY)
    }

    /// How a new policy starts: as its `init_mode` says, else from an artifact if it is the one that shares its network with stage 2.
    fn start(&self) -> Option<&'a str> {
        self.init_mode.or_else(|| self.is_shared().then_some("artifact"))
    }

    /// Whether a new policy starts from an artifact of stage 2.
    pub fn needs_artifact(&self) -> bool {
        self.start() == Some("artifact")
    }

    /// Whether the policy learns latent actions, which a teacher of stage 1 provides and not the dataset.
    pub fn needs_teacher(&self) -> bool {
        matches!(self.training_mode, Some("latent" | "multitask")) && self.label_prefix.is_none()
    }

    /// The fields that are given fit the policy. LeRobot checks the rest. Keys are relative to section `lerobot`.
    pub(crate) fn check(&self, fields: &PassedOn) -> Checked {
        if self.is_shared() {
            check_values(fields)?;
        }
        self.check_start(fields)?;
        self.check_teacher(fields)
    }

    /// A policy has what it starts from, and nothing that another start would read.
    fn check_start(&self, fields: &PassedOn) -> Checked {
        let Some(mode) = self.start() else { return Ok(()) };
        let starts = [
            ("artifact", ARTIFACT_FIELD, "lerobot.policy.stage2_artifact=runs/<run of train-vla>/artifacts/best"),
            ("smolvla", SMOLVLA_FIELD, "++lerobot.policy.smolvla_checkpoint=<folder of a LeRobot smolvla policy>"),
        ];
        for (of, name, hint) in starts {
            let key = format!("policy.{name}");
            match fields.get(name).and_then(Value::as_str) {
                None if mode == of => {
                    let message = format!("must be set, because lerobot.policy.init_mode is {mode}");
                    return Err(Problem::new(key, message, hint).unset());
                }
                Some(_) if mode != of => {
                    let message = format!("is not used, because lerobot.policy.init_mode is {mode}");
                    let hint = format!("set lerobot.policy.init_mode={of}, or lerobot.{key} to null");
                    return Err(Problem::new(key, message, hint));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A new policy that learns latent actions has a teacher.
    fn check_teacher(&self, fields: &PassedOn) -> Checked {
        let has_teacher = fields.get(TEACHER_FIELD).is_some_and(Value::is_string);
        if !self.is_shared() || !self.needs_teacher() || has_teacher {
            return Ok(());
        }
        let mode = self.training_mode.unwrap_or_default();
        let message = format!("stage3_training_mode={mode} needs a teacher");
        let hint = "++lerobot.policy.laq_checkpoint_path=runs/<run of train-laq>, or ++lerobot.policy.latent_label_prefix=latent_labels \
                    with a dataset of `hlrp label`";
        Err(Problem::new(format!("policy.{TEACHER_FIELD}"), message, hint).unset())
    }
}

fn check_values(fields: &PassedOn) -> Checked {
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    for (name, known) in CHOICES {
        let Some(value) = given(name) else { continue };
        let good = value.as_str().is_some_and(|text| known.contains(&text));
        let hint = format!("set it to one of {}", known.join(", "));
        require(good, &format!("policy.{name}"), format!("unknown value {value}"), hint)?;
    }
    for name in LOSS_WEIGHTS {
        let Some(value) = given(name) else { continue };
        not_negative(&format!("policy.{name}"), value.as_f64().unwrap_or(f64::NAN))?;
    }
    Ok(())
}
