//! What the service is asked before a run starts: whether the key is good, and whether it has the run.

use super::{
    super::{
        notice,
        settings::{Resume, Settings},
    },
    api::{Api, Failure},
};
use crate::env;
use hlrp_config::Problem;

/// Asks the service whether the key and, unless the run `is_known` to be ours, its id are good; one that cannot be reached is asked later.
pub(in crate::sinks::wandb) fn check_access(settings: &Settings, is_known: bool) -> Result<(), Problem> {
    let offline = "or record offline with logging.wandb.mode=offline and upload later with `hlrp runs sync`";
    let api = Api::new(settings.server.clone());
    let status = api.and_then(|api| {
        api.viewer(settings.server.init_timeout)?;
        match (&settings.run_id, settings.resume) {
            (Some(id), Resume::Must | Resume::Never) if !is_known => {
                Ok(Some(api.resume_status(settings.entity.as_deref(), &settings.project, id)?.is_some()))
            }
            _ => Ok(None),
        }
    });
    match (status, settings.resume) {
        (Ok(Some(false)), Resume::Must) => {
            let message = "W&B has no run of this id, but WANDB_RESUME=must";
            Err(Problem::new(env::WANDB_RUN_ID, message, "unset WANDB_RESUME, or give the id of a run"))
        }
        (Ok(Some(true)), Resume::Never) => {
            let message = "W&B has a run of this id, but WANDB_RESUME=never";
            Err(Problem::new(env::WANDB_RUN_ID, message, "unset WANDB_RESUME, or give another id"))
        }
        (Ok(_), _) => Ok(()),
        (Err(Failure::Refused { reason, .. }), _) => {
            let message = format!("{} refuses this client: {reason}", settings.server.base_url);
            let hint = format!("check the key ({} or `wandb login`) and the project, {offline}", env::WANDB_API_KEY);
            Err(Problem::new("logging.use_wandb", message, hint))
        }
        (Err(Failure::Again { reason, .. }), _) => {
            let url = &settings.server.base_url;
            notice::warn(&format!(
                "W&B cannot be reached at {url} ({reason}); what it should get is kept and sent when it can be"
            ));
            Ok(())
        }
    }
}

/// Asks the service whether it has the run `id`, which a client will insist on; one that cannot be reached is that client's concern.
pub(in crate::sinks::wandb) fn check_exists(settings: &Settings, id: &str) -> Result<(), Problem> {
    let api = Api::new(settings.server.clone());
    let found = api.and_then(|api| api.resume_status(settings.entity.as_deref(), &settings.project, id));
    match found {
        Ok(None) => {
            let message = format!("{} has no run '{id}' to resume", settings.server.base_url);
            let hint = "upload the earlier sessions of the run first (`hlrp runs show` names their folder), or go on \
                        with logging.wandb.mode=offline";
            Err(Problem::new("logging.wandb.mode", message, hint))
        }
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}
