//! Keys in tokens, through PKCS#11. The types of `cryptoki` stay in this file and `pkcs11_sign`.
//!
//! ed25519 keys sign with `CKM_EDDSA`, P-256 keys with `CKM_ECDSA` over a SHA-256 made here, which
//! is what every token with elliptic curves can do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use formats::digest::Sha256;
use formats::tuf::Key;

use super::passphrase::read_secret_line;
use super::uri::Pkcs11Uri;
use super::{KeyError, SigningKey, TokenKeyKind, Unlock, pkcs11_sign, public};

/// Names the library for URIs that name none, as `pkcs11-tool`'s and OpenSSL's providers do.
const MODULE_PATH: &str = "PKCS11_MODULE_PATH";

/// ed25519 as an object identifier (RFC 8410) and as a curve name (PKCS#11 3.0 §2.3.5); tokens
/// know one of them.
const ED25519: [&[u8]; 2] = [&[0x06, 0x03, 0x2b, 0x65, 0x70], b"\x13\x0cedwards25519"];
/// secp256r1 (RFC 5480).
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A key in a token.
pub(super) struct TokenKey {
    key: Key,
    uri: Pkcs11Uri,
}

impl TokenKey {
    /// The key that a URI names; its public half is read from the token.
    pub(super) fn open(uri: Pkcs11Uri) -> Result<Self, KeyError> {
        let token = Token::open(&uri)?;
        let key = token.public_key()?;
        Ok(TokenKey { key, uri })
    }

    /// A key whose public half is known. The token is met when something is signed.
    pub(super) fn known(key: Key, uri: Pkcs11Uri) -> Self {
        TokenKey { key, uri }
    }
}

impl SigningKey for TokenKey {
    fn key(&self) -> &Key {
        &self.key
    }

    fn raw_signature(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Token::open(&self.uri)?.sign(message)
    }
}

/// Makes a key inside a token, where it stays: not extractable.
pub fn generate(uri: &Pkcs11Uri, kind: TokenKeyKind) -> Result<Key, KeyError> {
    let token = Token::open(uri)?;
    if !token.private_keys()?.is_empty() {
        return Err(token.refused("there is such a key already; choose another object or id"));
    }
    token.generate(kind)?;
    token.public_key()
}

/// A session in which the user is logged in.
struct Token<'a> {
    uri: &'a Pkcs11Uri,
    library: PathBuf,
    session: Session,
    /// For keys that want it once more, for each signature.
    pin: AuthPin,
}

impl<'a> Token<'a> {
    fn open(uri: &'a Pkcs11Uri) -> Result<Self, KeyError> {
        let failed = failed(uri);
        let library = library(uri)?;
        let module = module(uri, &library)?;
        let slot = slot(&module, uri)?;
        let session = module.open_rw_session(slot).map_err(|error| failed("open it", error))?;
        let pin = match &uri.pin {
            Some(path) => read_secret_line(path, "PIN")?,
            None => {
                let name = uri.token.as_deref().unwrap_or("of the token");
                Unlock::Terminal.ask(&format!("PIN {name}"))?
            }
        };
        let pin = AuthPin::new(pin.as_str().into());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(failed("log in", error)),
        }
        Ok(Token { uri, library, session, pin })
    }

    fn refused(&self, why: &str) -> KeyError {
        KeyError::Token { token: shown(self.uri), why: why.to_owned() }
    }

    /// What the URI says about the key, as a search template.
    fn named(&self, class: ObjectClass) -> Vec<Attribute> {
        let label =
            self.uri.object.iter().map(|label| Attribute::Label(label.clone().into_bytes()));
        let id = self.uri.id.iter().map(|id| Attribute::Id(id.clone()));
        std::iter::once(Attribute::Class(class)).chain(label).chain(id).collect()
    }

    fn find(&self, class: ObjectClass) -> Result<Vec<ObjectHandle>, KeyError> {
        self.session
            .find_objects(&self.named(class))
            .map_err(|error| failed(self.uri)("look for the key", error))
    }

    fn private_keys(&self) -> Result<Vec<ObjectHandle>, KeyError> {
        self.find(ObjectClass::PRIVATE_KEY)
    }

    fn only_private_key(&self) -> Result<ObjectHandle, KeyError> {
        match self.private_keys()?.as_slice() {
            [one] => Ok(*one),
            [] => Err(self.refused("holds no such key; `object` and `id` choose one")),
            many => {
                let why = format!("holds {} such keys; `object` and `id` choose one", many.len());
                Err(self.refused(&why))
            }
        }
    }

    fn attributes(
        &self,
        object: ObjectHandle,
        kinds: &[AttributeType],
    ) -> Result<Vec<Attribute>, KeyError> {
        self.session
            .get_attributes(object, kinds)
            .map_err(|error| failed(self.uri)("read the key's attributes", error))
    }

    fn key_type(&self, object: ObjectHandle) -> Result<KeyType, KeyError> {
        let found = self.attributes(object, &[AttributeType::KeyType])?;
        match found.as_slice() {
            [Attribute::KeyType(kind)] => Ok(*kind),
            _ => Err(self.refused("does not say of which type its key is")),
        }
    }

    /// Whether the key signs only right after a login of its own (PIV's slot 9c, many eID cards).
    fn wants_login(&self, key: ObjectHandle) -> Result<bool, KeyError> {
        let found = self.attributes(key, &[AttributeType::AlwaysAuthenticate])?;
        Ok(found.contains(&Attribute::AlwaysAuthenticate(true)))
    }

    /// One signature. A PIN that is refused is not tried again: tokens lock.
    fn raw_signature(
        &self,
        mechanism: &Mechanism<'_>,
        key: ObjectHandle,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyError> {
        let failed = |action: &'static str| move |error| failed(self.uri)(action, error);
        if !self.wants_login(key)? {
            return self.session.sign(mechanism, key, data).map_err(failed("sign"));
        }
        self.session.sign_init(mechanism, key).map_err(failed("sign"))?;
        self.session
            .login(UserType::ContextSpecific, Some(&self.pin))
            .map_err(failed("log in for this signature"))?;
        pkcs11_sign::sign(&self.library, &self.session, data).map_err(failed("sign"))
    }

    /// The public half: an object of its own, or an attribute of the private one.
    fn public_key(&self) -> Result<Key, KeyError> {
        let private = self.only_private_key()?;
        let kind = self.key_type(private)?;
        if kind == KeyType::RSA {
            let why = "its key is RSA, which this program does not sign with in tokens: make one of \
                       ed25519 or P-256, or sign through a program (cmd:)";
            return Err(self.refused(why));
        }
        let mut points = Vec::new();
        for object in self.find(ObjectClass::PUBLIC_KEY)?.into_iter().chain([private]) {
            for attribute in self.attributes(object, &[AttributeType::EcPoint])? {
                if let Attribute::EcPoint(point) = attribute {
                    points.push(point);
                }
            }
        }
        let point = points.first().ok_or_else(|| self.refused("does not tell the public key"))?;
        let key = if kind == KeyType::EC_EDWARDS {
            public::ed25519(unwrapped(point, 32))
        } else if kind == KeyType::EC {
            public::p256(unwrapped(point, 65))
        } else {
            return Err(self.refused("its key is neither ed25519 nor ECDSA over P-256"));
        };
        key.map_err(|why| self.refused(&why))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.only_private_key()?;
        if self.key_type(key)? == KeyType::EC_EDWARDS {
            let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
            return self.raw_signature(&pure, key, message);
        }
        let digest = Sha256::of(message);
        let raw = self.raw_signature(&Mechanism::Ecdsa, key, &digest.0)?;
        let der = public::ecdsa_der(&raw);
        der.ok_or_else(|| self.refused("its signature does not have 64 bytes"))
    }

    fn generate(&self, kind: TokenKeyKind) -> Result<(), KeyError> {
        let (mechanism, curves): (_, &[&[u8]]) = match kind {
            TokenKeyKind::Ed25519 => (Mechanism::EccEdwardsKeyPairGen, &ED25519),
            TokenKeyKind::P256 => (Mechanism::EccKeyPairGen, &[P256]),
        };
        let mut last = None;
        for curve in curves {
            let public = [
                Attribute::Token(true),
                Attribute::Private(false),
                Attribute::Verify(true),
                Attribute::EcParams(curve.to_vec()),
            ];
            let private = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ];
            let label = self.uri.object.iter().map(|l| Attribute::Label(l.clone().into_bytes()));
            let id = self.uri.id.iter().map(|id| Attribute::Id(id.clone()));
            let name: Vec<Attribute> = label.chain(id).collect();
            let public = [&public[..], &name].concat();
            let private = [&private[..], &name].concat();
            match self.session.generate_key_pair(&mechanism, &public, &private) {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        let error = last.expect("there is at least one spelling of each curve");
        Err(failed(self.uri)("make a key", error))
    }
}

/// One initialised library per path and process: PKCS#11 §5.4 allows no more.
fn module(uri: &Pkcs11Uri, library: &Path) -> Result<Pkcs11, KeyError> {
    static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(library) {
        return Ok(module.clone());
    }
    let failed = failed(uri);
    let loaded = Pkcs11::new(library).map_err(|error| failed("load its library", error))?;
    match loaded.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed("start its library", error)),
    }
    modules.insert(library.to_owned(), loaded.clone());
    Ok(loaded)
}

/// The library that the URI names, or `PKCS11_MODULE_PATH`, or the one that asks all others.
fn library(uri: &Pkcs11Uri) -> Result<PathBuf, KeyError> {
    let variable = std::env::var_os(MODULE_PATH).filter(|path| !path.is_empty());
    let candidates = uri.libraries(variable.map(PathBuf::from));
    // What was named exactly is loaded, or its loader says why not.
    let [only] = candidates.as_slice() else {
        return candidates.into_iter().find(|path| path.exists()).ok_or_else(|| {
            let why = match &uri.module_name {
                Some(name) => format!("there is no library of the name {name}; give module-path"),
                None => format!(
                    "no library is named: give module-path (SoftHSM: \
                     /usr/lib/softhsm/libsofthsm2.so), or set {MODULE_PATH}, or install p11-kit"
                ),
            };
            KeyError::Token { token: shown(uri), why }
        });
    };
    Ok(only.clone())
}

/// The one slot whose token is the named one.
fn slot(module: &Pkcs11, uri: &Pkcs11Uri) -> Result<Slot, KeyError> {
    let failed = failed(uri);
    let about = module.get_library_info().map_err(|error| failed("read its library", error))?;
    let version = about.library_version();
    let version = format!("{}.{}", version.major(), version.minor());
    let is = |wanted: &Option<String>, there: &str| {
        wanted.as_ref().is_none_or(|wanted| wanted == there.trim_end())
    };
    if !(is(&uri.library_manufacturer, about.manufacturer_id())
        && is(&uri.library_description, about.library_description())
        && is(&uri.library_version, &version))
    {
        let why = format!(
            "the library is {:?} of {:?}, version {version}: not the one of the URI",
            about.library_description().trim_end(),
            about.manufacturer_id().trim_end()
        );
        return Err(KeyError::Token { token: shown(uri), why });
    }
    let slots = module.get_slots_with_token().map_err(|error| failed("list the tokens", error))?;
    let mut found = Vec::new();
    for slot in slots {
        let info = module.get_token_info(slot).map_err(|error| failed("read a token", error))?;
        let place = module.get_slot_info(slot).map_err(|error| failed("read a slot", error))?;
        let wanted = info.token_initialized()
            && uri.slot.is_none_or(|wanted| wanted == slot.id())
            && is(&uri.slot_description, place.slot_description())
            && is(&uri.slot_manufacturer, place.manufacturer_id())
            && is(&uri.token, info.label())
            && is(&uri.serial, info.serial_number())
            && is(&uri.manufacturer, info.manufacturer_id())
            && is(&uri.model, info.model());
        if wanted {
            found.push(slot);
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(KeyError::Token { token: shown(uri), why: "is not there; plug it in".into() }),
        many => {
            let why =
                format!("{} tokens are called so; `serial` or `slot-id` chooses one", many.len());
            Err(KeyError::Token { token: shown(uri), why })
        }
    }
}

/// A point as the bytes themselves, or as a DER OCTET STRING of them (tokens differ).
fn unwrapped(point: &[u8], len: usize) -> &[u8] {
    match point {
        [0x04, length, rest @ ..] if usize::from(*length) == len && rest.len() == len => rest,
        other => other,
    }
}

fn shown(uri: &Pkcs11Uri) -> String {
    let name = uri.token.as_deref().or(uri.serial.as_deref()).unwrap_or("(any)");
    match (&uri.module, &uri.module_name) {
        (Some(path), _) => format!("{name} of {}", path.display()),
        (None, Some(library)) => format!("{name} of {library}"),
        (None, None) => name.to_owned(),
    }
}

fn failed(uri: &Pkcs11Uri) -> impl Fn(&str, Error) -> KeyError + use<> {
    let token = shown(uri);
    move |action, error| {
        let why = match error {
            Error::Pkcs11(code, _) => format!("{action}: {code}"),
            other => format!("{action}: {other}"),
        };
        KeyError::Token { token: token.clone(), why }
    }
}
