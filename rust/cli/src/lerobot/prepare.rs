//! What both commands do before LeRobot starts.

use super::{
    environment,
    installation::Installation,
    launch,
    options::CommonOptions,
    plugin::{PYTHON, Plugin, Probe},
    rollout,
};
use crate::{child::Invocation, env, error::CommandError, programs::own_versions};
use anyhow::Result;
use hlrp_config::Composed;
use hlrp_schema::{LogLevel, PassedOn, Stage};
use hlrp_track::host;
use std::{collections::BTreeMap, path::Path, path::PathBuf};

/// LeRobot's distribution, and the releases whose flags are known here.
const LEROBOT: &str = "lerobot";
const KNOWN_RELEASES: &str = "0.6.";

/// The Python that runs LeRobot, and both versions.
pub(crate) struct Interpreter {
    pub(crate) python: PathBuf,
    pub(crate) version: String,
    pub(crate) lerobot: String,
}

/// The Python of a run of stage 3, as its configuration names or finds it.
///
/// # Errors
/// As [`Needs::interpreter`].
pub(crate) fn interpreter(stage: Stage, composed: &Composed) -> Result<Interpreter> {
    match stage {
        Stage::LerobotRollout => rollout::needs(&composed.extract()?).interpreter(),
        _ => launch::needs(&composed.extract()?).interpreter(),
    }
}

/// What a command of stage 3 needs of LeRobot, from its section of the configuration.
pub(super) struct Needs<'a> {
    /// Name of the section.
    pub(super) section: &'static str,
    pub(super) command: &'a str,
    pub(super) python: Option<&'a str>,
    pub(super) plugin: Option<&'a Path>,
    pub(super) env: &'a PassedOn,
    pub(super) num_threads: Option<usize>,
}

impl Needs<'_> {
    /// Finds LeRobot and the plugin, which is installed if it is missing. Returns the versions of Python, LeRobot, torch, the plugin
    /// and this program.
    ///
    /// # Errors
    /// LeRobot or the plugin is not available.
    pub(super) fn prepare(&self) -> Result<BTreeMap<String, String>> {
        environment::refuse_left_out(self.section, self.env)?;
        let Interpreter { python, lerobot: version, .. } = &self.interpreter()?;
        let plugin = self.plugin.map(Plugin::open).transpose()?;
        let mut names = vec![LEROBOT, "torch"];
        names.extend(plugin.as_ref().map(|plugin| plugin.name.as_str()));
        if !version.starts_with(KNOWN_RELEASES) {
            tracing::warn!("LeRobot {version}: the flags are those of {KNOWN_RELEASES}x");
        }
        if let Some(plugin) = &plugin {
            plugin.ensure(python, &format!("{}.install_policy_editable", self.section))?;
        }
        Ok(Probe::ask(python, &names)?.versions().into_iter().chain(own_versions()).collect())
    }

    /// The Python that runs LeRobot.
    ///
    /// # Errors
    /// There is none, it does not start, or it has no LeRobot.
    pub(super) fn interpreter(&self) -> Result<Interpreter> {
        let python = Installation::find(self.section, self.command, self.python)?.python;
        let mut versions = Probe::ask(&python, &[LEROBOT])?.versions();
        let Some(lerobot) = versions.remove(LEROBOT) else {
            let hint =
                format!("install lerobot==0.6.1 there, or name another interpreter with {}.python=...", self.section);
            return Err(CommandError::new(format!("{} has no LeRobot", python.display()), hint).into());
        };
        Ok(Interpreter { python, version: versions.remove(PYTHON).unwrap_or_default(), lerobot })
    }

    /// The program with its flags and environment; by its bare name where it is not found.
    pub(super) fn invocation(&self, flags: Vec<String>) -> Invocation {
        let found = Installation::find(self.section, self.command, self.python);
        let program = found.map_or_else(|_| PathBuf::from(self.command), |installation| installation.program);
        let env = environment::variables(self.env, self.num_threads);
        Invocation { program, arguments: flags, env, knows_usr1: false }
    }

    /// Adds what a program needs that runs in `run_dir` without a user at the terminal.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn complete(&self, invocation: &mut Invocation, simulator: Option<&str>, run_dir: &Path) -> Result<()> {
        invocation.env.insert(env::PYTHONUNBUFFERED.to_owned(), "1".to_owned());
        let python = Installation::find(self.section, self.command, self.python)?.python;
        super::libero::configure(simulator, &python, run_dir, &mut invocation.env)
    }

    /// Whether LeRobot must not fetch anything from the Hub.
    pub(super) fn is_offline(&self) -> bool {
        let given = environment::variables(self.env, None).remove(env::HF_HUB_OFFLINE);
        let value = given.or_else(|| std::env::var(env::HF_HUB_OFFLINE).ok()).unwrap_or_default();
        !matches!(value.to_lowercase().as_str(), "" | "0" | "false" | "no" | "off")
    }
}

/// Sets up the console, and refuses to compute on a login node.
///
/// # Errors
/// This is one.
pub(super) fn start(
    name: &str,
    level: LogLevel,
    login_nodes: Option<&[String]>,
    options: &CommonOptions,
) -> Result<()> {
    hlrp_track::console::init(level.into(), 0)?;
    host::refuse_login_node(name, login_nodes, options.allow_login_node)?;
    Ok(())
}
