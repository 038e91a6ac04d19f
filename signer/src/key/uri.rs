//! Where a key lies: a file, or a URI for keys that others hold.
//!
//! | written | is |
//! |---|---|
//! | `DIR/NAME.key` | a key file |
//! | `DIR/NAME.uri` | a file with one of the URIs below; the public half is `DIR/NAME.pub` |
//! | `pkcs11:token=T;object=O?module-path=LIB&pin-source=FILE` | a key in a token (RFC 7512); without a library `PKCS11_MODULE_PATH`, then p11-kit |
//! | `cmd:PROGRAM?public=FILE&arg=A&arg=B` | whatever that program signs with |
//!
//! Secrets never stand in a URI: it is an argument, and arguments are readable by everybody.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use formats::percent;

/// Where a key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// A key file, or a file with a URI.
    File(PathBuf),
    /// A token.
    Pkcs11(Box<Pkcs11Uri>),
    /// A program.
    Command(CommandUri),
}

/// A key in a token: RFC 7512, of which the parts that name a private key are understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `serial` of the token.
    pub serial: Option<String>,
    /// `manufacturer` of the token.
    pub manufacturer: Option<String>,
    /// `model` of the token.
    pub model: Option<String>,
    /// `object`: the key's label.
    pub object: Option<String>,
    /// `id` of the key.
    pub id: Option<Vec<u8>>,
    /// `slot-id`: the slot's number, which some libraries change at every start.
    pub slot: Option<u64>,
    /// `slot-description`.
    pub slot_description: Option<String>,
    /// `slot-manufacturer`.
    pub slot_manufacturer: Option<String>,
    /// `library-manufacturer`.
    pub library_manufacturer: Option<String>,
    /// `library-description`.
    pub library_description: Option<String>,
    /// `library-version`: `MAJOR.MINOR`.
    pub library_version: Option<String>,
    /// `module-path`: the library that speaks to the token.
    pub module: Option<PathBuf>,
    /// `module-name`: the same by its name, without `lib` and `.so`.
    pub module_name: Option<String>,
    /// `pin-source`: a private file whose first line is the PIN; otherwise it is asked for.
    pub pin: Option<PathBuf>,
}

/// A program that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandUri {
    /// The program. No shell reads it.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its public key: `.pub`, as `key import` makes it. Not needed in a `.uri` file, which has
    /// it beside itself.
    pub public: Option<PathBuf>,
}

/// A URI that names no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{uri:?} is not a key: {why}")]
pub struct UriError {
    /// As it was given, cut.
    pub uri: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for KeyLocation {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let wrong = |why: String| UriError { uri: text.chars().take(80).collect(), why };
        if let Some(rest) = text.strip_prefix("pkcs11:") {
            return pkcs11(rest).map(Box::new).map(KeyLocation::Pkcs11).map_err(wrong);
        }
        if let Some(rest) = text.strip_prefix("cmd:") {
            return command(rest).map(KeyLocation::Command).map_err(wrong);
        }
        if text.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(KeyLocation::File(text.into()))
    }
}

fn pkcs11(rest: &str) -> Result<Pkcs11Uri, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut uri = Pkcs11Uri::default();
    for (name, value) in members(path, ';')? {
        let place = match name {
            "token" => &mut uri.token,
            "serial" => &mut uri.serial,
            "manufacturer" => &mut uri.manufacturer,
            "model" => &mut uri.model,
            "object" => &mut uri.object,
            "slot-description" => &mut uri.slot_description,
            "slot-manufacturer" => &mut uri.slot_manufacturer,
            "library-manufacturer" => &mut uri.library_manufacturer,
            "library-description" => &mut uri.library_description,
            "library-version" => &mut uri.library_version,
            "slot-id" => {
                let number = decode_text(value)?;
                let number = number.parse().map_err(|_| "slot-id is not a number".to_owned())?;
                set(&mut uri.slot, name, number)?;
                continue;
            }
            "id" => {
                set(&mut uri.id, name, decode(value)?)?;
                continue;
            }
            // The private half is what is looked for, whatever half the URI was copied from.
            "type" => continue,
            _ => return Err(format!("attribute {name:?} is not known to this program")),
        };
        set(place, name, decode_text(value)?)?;
    }
    for (name, value) in members(query, '&')? {
        match name {
            "module-path" => set(&mut uri.module, name, decode_text(value)?.into())?,
            "module-name" => {
                let library = decode_text(value)?;
                if library.contains('/') {
                    return Err("module-name is a name; a path is module-path".to_owned());
                }
                set(&mut uri.module_name, name, library)?;
            }
            "pin-source" => {
                let source = decode_text(value)?;
                let file = source.strip_prefix("file:").unwrap_or(&source);
                // `file:///path` and `file:/path` (RFC 8089).
                let file = file.strip_prefix("//").unwrap_or(file);
                if file.is_empty() || file.starts_with('|') {
                    return Err("pin-source must name a file".to_owned());
                }
                set(&mut uri.pin, name, file.into())?;
            }
            "pin-value" => {
                return Err("a PIN in an argument is readable by everybody: use pin-source".into());
            }
            _ => return Err(format!("attribute {name:?} is not known to this program")),
        }
    }
    Ok(uri)
}

/// Where distributions put PKCS#11 libraries.
const FOLDERS: [&str; 10] = [
    "/usr/lib/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/aarch64-linux-gnu/pkcs11",
    "/usr/lib/softhsm",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
];

/// p11-kit's library, which speaks to all that are configured.
const PROXY: &str = "p11-kit-proxy";

impl Pkcs11Uri {
    /// Which libraries may be meant, best one first: what the URI says, what the environment says,
    /// p11-kit. One only, where it is named exactly.
    pub fn libraries(&self, environment: Option<PathBuf>) -> Vec<PathBuf> {
        if let Some(path) = &self.module {
            return vec![path.clone()];
        }
        if let (None, Some(path)) = (&self.module_name, environment) {
            return vec![path];
        }
        let name = self.module_name.as_deref().unwrap_or(PROXY);
        let files = [format!("{name}.so"), format!("lib{name}.so")];
        let folders = FOLDERS.iter().map(Path::new);
        folders.flat_map(|folder| files.iter().map(|file| folder.join(file))).collect()
    }
}

fn command(rest: &str) -> Result<CommandUri, String> {
    let (program, query) = rest.split_once('?').unwrap_or((rest, ""));
    let program = decode_text(program)?;
    if program.is_empty() {
        return Err("it names no program".to_owned());
    }
    let (mut public, mut arguments) = (None, Vec::new());
    for (name, value) in members(query, '&')? {
        match name {
            "public" => set(&mut public, name, decode_text(value)?.into())?,
            "arg" => arguments.push(decode_text(value)?),
            _ => return Err(format!("attribute {name:?} is not known to this program")),
        }
    }
    Ok(CommandUri { program: program.into(), arguments, public })
}

fn members(text: &str, separator: char) -> Result<Vec<(&str, &str)>, String> {
    let parts = text.split(separator).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').ok_or_else(|| format!("{part:?} has no value"))).collect()
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    if place.is_some() {
        return Err(format!("{name} is given twice"));
    }
    *place = Some(value);
    Ok(())
}

fn decode_text(text: &str) -> Result<String, String> {
    let text = String::from_utf8(decode(text)?).map_err(|_| format!("{text:?} is not UTF-8"))?;
    if text.contains('\0') { Err("it holds a NUL".to_owned()) } else { Ok(text) }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let broken = || format!("{text:?} has a % without two hexadecimal digits");
    percent::decode(text).ok_or_else(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_as_rfc_7512_says() {
        let uri = "pkcs11:token=The%20token;object=root-1;id=%01%ff;type=private\
                   ?module-path=/usr/lib/p11.so&pin-source=file:/run/pin";
        let KeyLocation::Pkcs11(uri) = uri.parse().unwrap() else { panic!("not a token") };
        assert_eq!(uri.token.as_deref(), Some("The token"));
        assert_eq!(uri.object.as_deref(), Some("root-1"));
        assert_eq!(uri.id, Some(vec![1, 255]));
        assert_eq!(uri.module, Some(PathBuf::from("/usr/lib/p11.so")));
        assert_eq!(uri.pin, Some(PathBuf::from("/run/pin")));
    }

    /// RFC 7512 §2.3 and §2.4; the libraries in the order they are tried.
    #[test]
    fn a_library_is_named_by_path_by_name_or_not_at_all() {
        let environment = || Some(PathBuf::from("/env.so"));
        let libraries = |uri: &str, environment| match uri.parse().unwrap() {
            KeyLocation::Pkcs11(uri) => uri.libraries(environment),
            other => panic!("{other:?}"),
        };
        let path = |text: &str| vec![PathBuf::from(text)];
        assert_eq!(libraries("pkcs11:?module-path=/m.so", environment()), path("/m.so"));
        assert_eq!(libraries("pkcs11:token=a", environment()), path("/env.so"));
        let named = libraries("pkcs11:?module-name=softhsm2", environment());
        assert!(named.contains(&"/usr/lib/softhsm/libsofthsm2.so".into()), "{named:?}");
        assert!(!named.contains(&"/env.so".into()), "{named:?}");
        let none = libraries("pkcs11:token=a", None);
        assert!(none.iter().all(|path| path.to_str().unwrap().contains("p11-kit-proxy")));
        let uri = "pkcs11:slot-id=7;library-manufacturer=S;library-version=2.6;slot-description=d";
        let KeyLocation::Pkcs11(uri) = uri.parse().unwrap() else { panic!("not a token") };
        assert_eq!((uri.slot, uri.library_version.as_deref()), (Some(7), Some("2.6")));
    }

    #[test]
    fn a_program_gets_its_arguments_whole() {
        let uri = "cmd:/usr/bin/kms?public=kms.pub&arg=--key&arg=a%20b;%26c";
        let KeyLocation::Command(uri) = uri.parse().unwrap() else { panic!("not a program") };
        assert_eq!(uri.arguments, ["--key", "a b;&c"]);
        assert_eq!(uri.public, Some(PathBuf::from("kms.pub")));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let module = "?module-path=/m";
        for (uri, said) in [
            ("", "empty"),
            ("pkcs11:slot-id=first", "not a number"),
            ("pkcs11:slot-id=1;slot-id=2", "twice"),
            ("pkcs11:token=a?module-name=/usr/lib/x.so", "module-path"),
            (&format!("pkcs11:token=a;token=b{module}"), "twice"),
            (&format!("pkcs11:token{module}"), "no value"),
            (&format!("pkcs11:x-vendor=x{module}"), "not known"),
            (&format!("pkcs11:token=a{module}&pin-value=1234"), "readable by everybody"),
            (&format!("pkcs11:token=a{module}&pin-source=|ask"), "must name a file"),
            (&format!("pkcs11:token=%zz{module}"), "hexadecimal"),
            (&format!("pkcs11:token=%ff{module}"), "UTF-8"),
            ("cmd:", "no program"),
            ("cmd:x?shell=1", "not known"),
            ("cmd:x%00y", "NUL"),
        ] {
            let error = uri.parse::<KeyLocation>().map(drop).expect_err(uri);
            assert!(error.to_string().contains(said), "{uri}: {error}");
        }
    }
}
