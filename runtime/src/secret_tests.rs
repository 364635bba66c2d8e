//! Where a secret is found, what is refused and with which words, and that a file is made once and privately.

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn private(path: &Path, text: &str) {
    write_private(path, text).unwrap();
}

#[test]
fn a_made_secret_is_read_back_from_its_text() {
    let secret = ClusterSecret::generate();
    let text = format!("  {}\n", secret.to_text());
    assert_eq!(ClusterSecret::from_text(&text, SecretSource::Environment).unwrap(), secret);
    assert_ne!(ClusterSecret::generate(), secret);
}

#[test]
fn debug_shows_nothing_of_it() {
    let secret = ClusterSecret::generate();
    assert_eq!(format!("{secret:?}"), "ClusterSecret(..)");
}

#[test]
fn a_short_cut_or_many_lined_text_is_refused() {
    let from = SecretSource::Environment;
    let text = ClusterSecret::generate().to_text().to_owned();
    let refused = |text: &str| ClusterSecret::from_text(text, from.clone()).unwrap_err();
    assert!(matches!(refused("hunter2"), SecretError::TooShort { chars: 7, .. }));
    assert!(matches!(refused(""), SecretError::TooShort { chars: 0, .. }));
    assert!(matches!(refused(&text[..50]), SecretError::Damaged { .. }));
    assert!(matches!(refused(&format!("{text}\n{text}")), SecretError::NotText { .. }));
}

#[test]
fn the_places_are_asked_in_order() {
    let folder = folder();
    let (named, default) = (folder.path().join("named"), folder.path().join("default"));
    let [a, b, c, d] = [(); 4].map(|()| ClusterSecret::generate());
    private(&named, a.to_text());
    private(&default, d.to_text());
    let find = |file, environment, config| find_in(file, environment, config, Some(default.as_path())).unwrap();
    let (env, config) = (Some(b.to_text()), Some(c.to_text()));
    assert_eq!(find(Some(named.as_path()), env, config), (a, SecretSource::File(named.clone())));
    assert_eq!(find(None, env, config), (b.clone(), SecretSource::Environment));
    assert_eq!(find(None, None, config), (c.clone(), SecretSource::Configuration));
    assert_eq!(find(None, None, None), (d, SecretSource::Default(default.clone())));
}

#[test]
fn a_place_that_holds_a_bad_secret_is_not_passed_over() {
    let folder = folder();
    let default = folder.path().join("default");
    private(&default, ClusterSecret::generate().to_text());
    let absent = folder.path().join("absent");
    let error = find_in(Some(&absent), None, None, Some(&default)).unwrap_err();
    assert!(error.to_string().contains("scp user@scheduler"), "{error}");
    assert!(find_in(None, Some("short"), None, Some(&default)).is_err());
}

#[test]
fn nowhere_says_what_to_copy_from_where() {
    let folder = folder();
    let path = folder.path().join("none");
    let error = find_in(None, None, None, Some(&path)).unwrap_err();
    assert!(matches!(error, SecretError::Missing { .. }));
    let text = error.to_string();
    assert!(text.contains("scp user@scheduler:~/.config/starling/secret ~/.config/starling/secret"), "{text}");
    assert!(text.contains(path.to_str().unwrap()) && text.contains("--insecure"), "{text}");
}

#[test]
fn a_file_is_made_once_and_then_read() {
    let folder = folder();
    let path = folder.path().join("deep/er/secret");
    let (made, new) = ClusterSecret::create(&path).unwrap();
    assert!(new);
    let (again, new) = ClusterSecret::create(&path).unwrap();
    assert!(!new);
    assert_eq!(made, again);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "a draft was left behind: {left:?}");
}

#[test]
fn many_that_make_it_at_once_agree() {
    let folder = folder();
    let path = folder.path().join("secret");
    let secrets: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| ClusterSecret::create(&path).unwrap())).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert_eq!(secrets.iter().filter(|(_, new)| *new).count(), 1);
    assert!(secrets.iter().all(|(secret, _)| *secret == secrets[0].0));
}

#[cfg(unix)]
#[test]
fn a_made_file_is_private_and_an_exposed_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("secret");
    ClusterSecret::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = ClusterSecret::read(&path).unwrap_err();
    assert!(matches!(error, SecretError::Exposed { mode: 0o644, .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
