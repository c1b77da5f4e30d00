//! What is refused, and in which words.

use std::error::Error as _;
use std::sync::Arc;

use longshore_cloud::{CloudError, CreateRequest, ErrorKind, Operation, Tags};

use crate::checks::answer::verify;
use crate::lab::{Lab, Step, Stop};

const NO_SUCH: &str = "no-such-thing-as-longshore-conformance";

pub(crate) async fn unknown_type(lab: Arc<Lab>) -> Step<()> {
    if lab.subject.any_type {
        return Err(Stop::NotRun(
            "the provider accepts any type (Subject::with_any_type_accepted)".into(),
        ));
    }
    let request = of_unknown_type(&lab);
    let did = format!(
        "created an instance of the provider type {:?}",
        request.instance_type.provider_type
    );
    expect_refusal(&lab, &did, &request).await
}

fn of_unknown_type(lab: &Lab) -> CreateRequest {
    let mut request = lab.request();
    request.instance_type.provider_type = NO_SUCH.into();
    request.instance_type.name = NO_SUCH.into();
    request
}

pub(crate) async fn unknown_image(lab: Arc<Lab>) -> Step<()> {
    if lab.subject.any_image {
        return Err(Stop::NotRun(
            "the provider has no images (Subject::with_any_image_accepted)".into(),
        ));
    }
    let mut request = lab.request();
    request.image = NO_SUCH.into();
    let did = format!("created an instance with the image {NO_SUCH:?}");
    expect_refusal(&lab, &did, &request).await
}

async fn expect_refusal(lab: &Lab, did: &str, request: &CreateRequest) -> Step<()> {
    let error = match lab.create_or_hear_why_not(request).await? {
        Err(error) => error,
        Ok(made) => {
            let saw = format!("the instance {} was made", made.id);
            let fix = "pass type and image on to the provider as they are, and refuse what it \
                       does not have";
            return Err(lab.broken(did, &saw, fix));
        }
    };
    if error.kind != ErrorKind::InvalidRequest {
        let saw = format!(
            "the error is of kind {:?}, not InvalidRequest: {}",
            error.kind,
            error.chain()
        );
        let fix = "map the provider's code for an unknown type or image to InvalidRequest, so \
                   that nobody waits for it to pass";
        return Err(lab.broken(did, &saw, fix));
    }
    lab.let_listings_settle().await?;
    match lab.list(&lab.tags).await?.keys().next() {
        None => Ok(()),
        Some(id) => {
            let saw = format!("the error says NotDone, but the instance {id} was made");
            let fix = "have the provider check the request before anything is made, or remove \
                       what was made before the error is returned";
            Err(lab.broken(did, &saw, fix))
        }
    }
}

/// Looks at every error that can be had for nothing.
pub(crate) async fn errors_say_what_failed(lab: Arc<Lab>) -> Step<()> {
    let unknown = lab.unknown_id(0);
    let tags: Tags = [("longshore-conformance-added".to_owned(), "1".to_owned())].into();
    let mut errors = Vec::new();
    for (_, answer) in lab.set_tags(&[(unknown.clone(), tags)]).await? {
        errors.extend(answer.err().map(|error| (Operation::SetTags, error)));
    }
    if !lab.subject.any_type {
        let answer = lab.create_or_hear_why_not(&of_unknown_type(&lab)).await?;
        errors.extend(answer.err().map(|error| (Operation::Create, error)));
    }
    if let Some(key) = lab.subject.wrong_key.clone() {
        let answer = verify(&lab, &unknown, &key).await?;
        errors.extend(answer.err().map(|error| (Operation::VerifyHostKey, error)));
    }
    for (operation, error) in &errors {
        check_words(&lab, *operation, error)?;
    }
    match errors.len() {
        0 => Err(Stop::NotRun(
            "no call that should fail did, so there was no error to read".into(),
        )),
        _ => Ok(()),
    }
}

fn check_words(lab: &Lab, operation: Operation, error: &CloudError) -> Step<()> {
    let did = format!(
        "made {operation:?} fail, and read the error: {}",
        error.chain()
    );
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    let (saw, fix) = if error.operation != operation {
        (
            format!("it says that {:?} failed", error.operation),
            "build the error with the operation that was called",
        )
    } else if error.provider.trim().is_empty() {
        (
            "it does not name the provider".into(),
            "build the error with the driver's name",
        )
    } else if source.trim().is_empty() {
        (
            "its source has no words".into(),
            "put what the provider said, or why the driver refused, into the source",
        )
    } else if source.contains(&error.to_string()) || error.to_string().contains(&source) {
        (
            format!("its source says {source:?}, which the error says already"),
            "put only the provider's own words into the source; CloudError adds provider, call \
             and kind itself",
        )
    } else {
        return Ok(());
    };
    Err(lab.broken(&did, &saw, fix))
}
