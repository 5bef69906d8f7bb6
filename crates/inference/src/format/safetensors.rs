//! The safetensors header: a length, that many bytes of JSON, and data that the tensors cover exactly.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result, quote};
use crate::format::Dtype;
use crate::format::files::Content;
use crate::format::foreign;
use crate::format::json;
use crate::format::weights::{Capacity, Shard, Table};

/// Reads a file's header and checks every claim in it against the file's length.
pub(crate) fn read(file: &str, content: Content) -> Result<Shard> {
    let len = content.len();
    let header = header_bytes(file, &content.start(foreign::START_BYTES)?, len)?;
    let start = content.start((LENGTH_BYTES + header) as u64)?;
    let table = parse(file, &start[LENGTH_BYTES..][..header], len)?;
    Ok(Shard::new(file, &start, content, table))
}

/// Refuses a file by its first bytes: the header's length has to fit the file, and what looks like another format is named.
pub(crate) fn check_start(file: &str, start: &[u8], len: u64) -> Result<()> {
    header_bytes(file, start, len).map(drop)
}

fn header_bytes(file: &str, start: &[u8], len: u64) -> Result<usize> {
    let fail = |what: String| Err(Error::invalid(format!("{}: {what}", quote(file))));
    let Some(length) = start.first_chunk::<LENGTH_BYTES>() else {
        return fail(format!("{len} bytes, a header needs at least {LENGTH_BYTES}"));
    };
    let (length, rest) = (u64::from_le_bytes(*length), len - LENGTH_BYTES as u64);
    if length > MAX_HEADER_BYTES || length > rest {
        foreign::refuse(file, start)?;
    }
    if length > MAX_HEADER_BYTES {
        return fail(format!("a header of {length} bytes, expected at most {MAX_HEADER_BYTES}"));
    }
    if length > rest {
        return fail(format!("a header of {length} bytes, but only {rest} follow"));
    }
    if start.get(LENGTH_BYTES) != Some(&b'{') || length == 0 {
        return fail(format!("a header of {length} bytes that is not a JSON object"));
    }
    Ok(length as usize)
}

fn parse(file: &str, header: &[u8], len: u64) -> Result<Table> {
    let data_start = LENGTH_BYTES + header.len();
    let header = json::text(file, header)?;
    let extent = json::measure(file, header)?;
    if extent.inner_objects > MAX_TENSORS {
        let (file, tensors) = (quote(file), extent.inner_objects);
        return Err(Error::invalid(format!("{file}: {tensors} tensors, expected at most {MAX_TENSORS}")));
    }
    let mut table = Table::with_capacity(Capacity {
        tensors: extent.inner_objects,
        // Of a tensor's items, two are data offsets.
        dims: extent.items.saturating_sub(2 * extent.inner_objects).min(MAX_DIMS * extent.inner_objects),
        name_bytes: extent.key_bytes,
    });
    let mut json = serde_json::Deserializer::from_str(header);
    Header(&mut table)
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| json::syntax_error(file, error))?;
    table.finish(file, data_start, (len - data_start as u64) as usize, 1)
}

/// Reads `{"__metadata__": {…}, "name": {"dtype", "shape", "data_offsets"}, …}` into a table.
struct Header<'t>(&'t mut Table);

impl<'de> DeserializeSeed<'de> for Header<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<(), A::Error> {
        let mut metadata_seen = false;
        while let Some(Text(name)) = access.next_key()? {
            if name == METADATA {
                if metadata_seen {
                    return Err(A::Error::custom(format!("duplicate key {}", quote(METADATA))));
                }
                metadata_seen = true;
                let Metadata = access.next_value()?;
                continue;
            }
            let place =
                |what: &dyn fmt::Display| A::Error::custom(format!("tensor {}: {what}", quote(&name)));
            let TensorInfo { dtype: Text(dtype), shape, data_offsets: Offsets(start, end) } =
                access.next_value().map_err(|error| place(&error))?;
            let known = Dtype::from_safetensors(&dtype).ok_or_else(|| {
                place(&format_args!(
                    "dtype {}, expected F32, F16, BF16 or another of the format",
                    quote(&dtype)
                ))
            })?;
            self.0.push(&name, known, shape.as_slice(), start, end).map_err(|what| place(&what))?;
        }
        Ok(())
    }
}

/// The free text that writers leave; read for its form, not kept.
struct Metadata;

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of strings under {METADATA}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Metadata, A::Error> {
                let mut keys = Vec::new();
                while let Some((Text(key), Text(_))) = access.next_entry::<Text, Text>()? {
                    if keys.len() == MAX_METADATA_KEYS {
                        return Err(A::Error::custom(format!(
                            "more than {MAX_METADATA_KEYS} keys in {METADATA}"
                        )));
                    }
                    keys.push(key);
                }
                keys.sort_unstable();
                match keys.windows(2).find(|pair| pair[0] == pair[1]) {
                    Some(pair) => {
                        Err(A::Error::custom(format!("duplicate key {} in {METADATA}", quote(&pair[0]))))
                    }
                    None => Ok(Metadata),
                }
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

/// A tensor's entry. Derived readers also take arrays; this one takes objects only.
struct TensorInfo<'a> {
    dtype: Text<'a>,
    shape: Shape,
    data_offsets: Offsets,
}

impl<'de: 'a, 'a> Deserialize<'de> for TensorInfo<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields<'a> {
            #[serde(borrow)]
            dtype: Text<'a>,
            shape: Shape,
            data_offsets: Offsets,
        }
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> std::result::Result<Fields<'de>, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(access))
            }
        }
        let Fields { dtype, shape, data_offsets } = deserializer.deserialize_map(Object)?;
        Ok(Self { dtype, shape, data_offsets })
    }
}

/// A string, borrowed from the header unless it has escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> std::result::Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowed)
    }
}

/// At most [`MAX_DIMS`] sizes, held in place.
struct Shape {
    dims: [usize; MAX_DIMS],
    len: usize,
}

impl Shape {
    fn as_slice(&self) -> &[usize] {
        &self.dims[..self.len]
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Shape, A::Error> {
                let mut shape = Shape { dims: [0; MAX_DIMS], len: 0 };
                while let Some(dim) = access.next_element()? {
                    *shape
                        .dims
                        .get_mut(shape.len)
                        .ok_or_else(|| A::Error::invalid_length(MAX_DIMS + 1, &self))? = dim;
                    shape.len += 1;
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// `[start, end]`, counted from the start of the data.
struct Offsets(usize, usize);

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let [start, end] = <[usize; 2]>::deserialize(deserializer)?;
        Ok(Self(start, end))
    }
}

const LENGTH_BYTES: usize = 8;
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Per file.
const MAX_TENSORS: usize = 100_000;
const MAX_DIMS: usize = 8;
const MAX_METADATA_KEYS: usize = 4096;
const METADATA: &str = "__metadata__";
