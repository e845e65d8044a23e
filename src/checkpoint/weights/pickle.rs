//! A reader of Python's pickle format for state dicts of tensors, and nothing else.
//!
//! A pickle is a program for a stack machine that can call any Python function. This machine supports the opcodes that
//! `torch.save` writes for a dictionary of tensors in protocols 2 to 5, and calls nothing: calls of a few known
//! functions are kept as data for [`super::state_dict`] to interpret, and any other name is an error. The opcodes are
//! described in Python's `Lib/pickletools.py`.
//!
//! Values are small indices into flat tables, so a hostile pickle has nothing to exploit: shared values are not copied,
//! nested ones are neither walked nor dropped recursively, and a cycle is two numbers. A byte of pickle creates at most
//! one value, and the number of instructions is limited, so memory is too.

use super::quoted;
use anyhow::{bail, ensure, Context, Result};
use safetensors::Dtype;
use std::collections::HashMap;

/// Maximum number of instructions. A state dict has about 40 per tensor, so this allows some 25,000 tensors and at most
/// 100 MB of values.
const MAX_INSTRUCTIONS: usize = 1_000_000;

/// Names that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`, the type of a state dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: storage, offset, shape, strides, ….
    RebuildTensor,
    /// `torch._utils._rebuild_parameter` and `_rebuild_parameter_with_state`: a tensor, ….
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: a function of these, a class, the function's arguments, attributes.
    RebuildFromType,
    /// `torch.Tensor` or `torch.nn.parameter.Parameter`, as a class.
    TensorClass,
    /// A class of storages, such as `torch.FloatStorage`.
    Storage(Dtype),
}

impl Global {
    fn find(module: &str, name: &str) -> Result<Global> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Global::TensorClass,
            ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
            ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
            ("torch", "LongStorage") => Global::Storage(Dtype::I64),
            ("torch", "IntStorage") => Global::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
            ("torch", "CharStorage") => Global::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Global::Storage(Dtype::BOOL),
            _ => bail!(
                "it refers to {}, which a checkpoint of tensors does not need; nothing was executed. \
                 Save the model's state_dict() alone, best as model.safetensors",
                quoted(&format!("{module}.{name}")).trim_matches('"')
            ),
        };
        Ok(global)
    }
}

/// A value of a pickle: the value itself if it is small, otherwise an index into one of its [`Pickle`]'s tables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: little-endian two's complement.
    Long(&'a [u8]),
    Float,
    Text(&'a str),
    Global(Global),
    Tuple(usize),
    List(usize),
    /// Keys and values in turn.
    Dict(usize),
    /// A function and its tuple of arguments, not called.
    Call(usize),
    /// An object outside the pickle, by its id.
    Persistent(usize),
}

/// A parsed pickle: its value and everything in it.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    root: Value<'a>,
    /// Length in bytes, including STOP.
    length: usize,
    /// The values of every tuple, list, dictionary and call.
    sequences: Vec<Vec<Value<'a>>>,
    /// The ids of persistent objects.
    persistent: Vec<Value<'a>>,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`; anything after its STOP is ignored.
    ///
    /// # Errors
    /// If the pickle is cut off or malformed, is longer than [`MAX_INSTRUCTIONS`], or uses an opcode or a name that a
    /// state dict does not need.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Pickle<'a>> {
        let pickle = Pickle { root: Value::None, length: 0, sequences: Vec::new(), persistent: Vec::new() };
        let mut machine = Machine { bytes, pickle, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        for _ in 0..MAX_INSTRUCTIONS {
            let start = machine.pickle.length;
            let stopped = machine.step().with_context(|| format!("its pickle is not valid at byte {start}"))?;
            if let Some(root) = stopped {
                return Ok(Pickle { root, ..machine.pickle });
            }
        }
        bail!("its pickle has more than {MAX_INSTRUCTIONS} instructions, too many for a checkpoint of tensors")
    }

    /// The value of the whole pickle.
    pub(super) fn root(&self) -> Value<'a> {
        self.root
    }

    /// Length in bytes, from its first opcode to its STOP.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The elements of a tuple or a list.
    pub(super) fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        let (Value::Tuple(index) | Value::List(index)) = value else { return None };
        Some(&self.sequences[index])
    }

    /// The entries of a dictionary, in the order of insertion; if a key repeats, the last entry counts.
    pub(super) fn entries(&self, value: Value<'a>) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        let Value::Dict(index) = value else { return None };
        let (entries, _) = self.sequences[index].as_chunks();
        Some(entries.iter().map(|[key, value]| (*key, *value)).collect())
    }

    /// The entry of a dictionary for a string key.
    pub(super) fn entry(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        let entries = self.entries(dict)?.into_iter().rev();
        entries.filter(|(found, _)| *found == Value::Text(key)).map(|(_, value)| value).next()
    }

    /// The function and the arguments of a call.
    pub(super) fn call(&self, value: Value<'a>) -> Option<(Global, &[Value<'a>])> {
        let Value::Call(index) = value else { return None };
        let &[Value::Global(function), arguments] = &self.sequences[index][..] else { return None };
        Some((function, self.items(arguments)?))
    }

    /// The id of a persistent object.
    pub(super) fn persistent_id(&self, value: Value<'a>) -> Option<Value<'a>> {
        let Value::Persistent(index) = value else { return None };
        Some(self.persistent[index])
    }

    /// The ids of all persistent objects, in order of appearance.
    pub(super) fn persistent_ids(&self) -> &[Value<'a>] {
        &self.persistent
    }
}

impl Value<'_> {
    /// An integer of up to 64 bits.
    pub(super) fn int(self) -> Option<i64> {
        let Value::Int(value) = self else { return None };
        Some(value)
    }
}

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    /// What has been read so far; its length is the position in `bytes`.
    pickle: Pickle<'a>,
    stack: Vec<Value<'a>>,
    /// The stack's length at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
}

impl<'a> Machine<'a> {
    /// Executes one instruction; returns the pickle's value at its STOP.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        let opcode = self.take(1)?[0];
        match opcode {
            // PROTO and its version, FRAME and its length: not needed.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'q' | b'r' | 0x94 => self.memoize(opcode)?,
            b'h' | b'j' => self.recall(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                self.stack.push(Value::Persistent(self.pickle.persistent.len()));
                self.pickle.persistent.push(id);
            }
            b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'a' | b'e' | b'}' | b'd' | b's' | b'u' => {
                self.container(opcode)?;
            }
            _ => {
                let value = self.literal(opcode)?;
                self.stack.push(value);
            }
        }
        Ok(None)
    }

    /// A literal value: BININT, BININT1, BININT2, LONG1, BINFLOAT, None, booleans and strings.
    fn literal(&mut self, opcode: u8) -> Result<Value<'a>> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => integer(self.take(4)?),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            0x8a => {
                let length = self.number(1)?;
                integer(self.take(length)?)
            }
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            // With `U` and `T`, Python 2's str, in checkpoints saved under Python 2.
            0x8c | b'U' => self.text(1)?,
            b'X' | b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            _ => bail!(
                "it uses the pickle opcode {opcode:#04x}, which a checkpoint of tensors does not need; \
                 nothing was executed"
            ),
        })
    }

    /// A string after its length, which takes `length_size` bytes.
    fn text(&mut self, length_size: u64) -> Result<Value<'a>> {
        let length = self.number(length_size)?;
        Ok(Value::Text(std::str::from_utf8(self.take(length)?).context("a string is not UTF-8")?))
    }

    /// BINPUT, LONG_BINPUT and MEMOIZE.
    fn memoize(&mut self, opcode: u8) -> Result<()> {
        let index = match opcode {
            b'q' => self.number(1)?,
            b'r' => self.number(4)?,
            _ => self.memo.len() as u64,
        };
        let top = *self.stack.last().context("the stack is empty")?;
        self.memo.insert(index, top);
        Ok(())
    }

    /// BINGET and LONG_BINGET.
    fn recall(&mut self, opcode: u8) -> Result<()> {
        let index = self.number(if opcode == b'j' { 4 } else { 1 })?;
        let value = *self.memo.get(&index).with_context(|| format!("the memo has no entry {index}"))?;
        self.stack.push(value);
        Ok(())
    }

    /// GLOBAL and STACK_GLOBAL.
    fn global(&mut self, opcode: u8) -> Result<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            let (Value::Text(module), Value::Text(name)) = (module, name) else {
                bail!("a global's module or name is not a string");
            };
            (module, name)
        };
        self.stack.push(Value::Global(Global::find(module, name)?));
        Ok(())
    }

    /// REDUCE: an `OrderedDict` becomes a dictionary; any other call is kept as data.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        match (function, arguments) {
            (Value::Global(Global::OrderedDict), Value::Tuple(arguments)) => {
                let items = self.initial_items(arguments)?;
                self.push(Value::Dict, items);
            }
            (Value::Global(_), Value::Tuple(_)) => self.push(Value::Call, vec![function, arguments]),
            _ => bail!("it calls something that is not a function with a tuple of arguments"),
        }
        Ok(())
    }

    /// The keys and values that `OrderedDict` is called with: none in Python 3, a list of `[key, value]` in Python 2.
    fn initial_items(&mut self, arguments: usize) -> Result<Vec<Value<'a>>> {
        let sequences = &mut self.pickle.sequences;
        let pairs = match sequences[arguments][..] {
            [] => return Ok(Vec::new()),
            // Taken rather than copied: calls with the same long list again and again must not fill the memory.
            [Value::List(pairs)] => std::mem::take(&mut sequences[pairs]),
            _ => bail!("collections.OrderedDict is called with something that is not a list of pairs"),
        };
        let pair = |value| self.pickle.items(value).filter(|pair| pair.len() == 2);
        let pairs: Option<Vec<_>> = pairs.into_iter().map(pair).collect();
        Ok(pairs.context("an entry of an OrderedDict is not a pair")?.concat())
    }

    /// BUILD: sets attributes. A state dict has one, `_metadata`, with the versions of its modules; it is not needed.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            _ => bail!("it sets attributes of an object that is not a state dict; nothing was executed"),
        }
    }

    /// Tuples, lists and dictionaries: new ones, and what is added to one.
    fn container(&mut self, opcode: u8) -> Result<()> {
        let items = match opcode {
            // EMPTY_TUPLE, EMPTY_LIST and EMPTY_DICT.
            b')' | b']' | b'}' => Vec::new(),
            // APPEND, SETITEM, and TUPLE1 to TUPLE3.
            b'a' => self.pop_many(1)?,
            b's' => self.pop_many(2)?,
            0x85..=0x87 => self.pop_many(usize::from(opcode - 0x84))?,
            // TUPLE, LIST, DICT, APPENDS and SETITEMS.
            _ => self.pop_to_mark()?,
        };
        let is_paired = items.len() % 2 == 0 || !matches!(opcode, b'd' | b'u');
        ensure!(is_paired, "a dictionary's last key has no value");
        match (opcode, self.stack.last()) {
            (b']' | b'l', _) => self.push(Value::List, items),
            (b'}' | b'd', _) => self.push(Value::Dict, items),
            (b'a' | b'e', Some(&Value::List(index))) | (b's' | b'u', Some(&Value::Dict(index))) => {
                self.pickle.sequences[index].extend(items);
            }
            (b'a' | b'e', _) => bail!("it appends to something that is not a list"),
            (b's' | b'u', _) => bail!("it sets an item of something that is not a dictionary"),
            _ => self.push(Value::Tuple, items),
        }
        Ok(())
    }

    /// Pushes a new value that consists of `items`.
    fn push(&mut self, value: fn(usize) -> Value<'a>, items: Vec<Value<'a>>) {
        self.stack.push(value(self.pickle.sequences.len()));
        self.pickle.sequences.push(items);
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        ensure!(self.marks.last().is_none_or(|&mark| mark < self.stack.len()), "a value is missing above a mark");
        self.stack.pop().context("the stack is empty")
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let start = self.stack.len().checked_sub(count).context("the stack has too few values")?;
        ensure!(self.marks.last().is_none_or(|&mark| mark <= start), "an item or a tuple extends past a mark");
        Ok(self.stack.split_off(start))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().context("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.bytes[self.pickle.length..].get(..length);
        self.pickle.length += bytes.map_or(0, <[u8]>::len);
        bytes.context("the file is cut off; download it again")
    }

    /// An unsigned little-endian number of `size` bytes, at most eight.
    fn number(&mut self, size: u64) -> Result<u64> {
        Ok(self.take(size)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The text up to the next line feed, which is skipped.
    fn line(&mut self) -> Result<&'a str> {
        /// Longer than any module or class name.
        const LONGEST: usize = 1000;
        let rest = &self.bytes[self.pickle.length..];
        let length = rest.iter().take(LONGEST).position(|&byte| byte == b'\n').context("a name is not terminated")?;
        self.pickle.length += length + 1;
        std::str::from_utf8(&rest[..length]).context("a name is not UTF-8")
    }
}

/// A little-endian two's complement number.
fn integer(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Long(bytes);
    }
    let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut number = [if is_negative { 0xff } else { 0 }; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        format!("{:#}", Pickle::read(bytes).unwrap_err())
    }

    #[test]
    fn reads_what_a_state_dict_is_made_of() {
        let bytes = b"\x80\x02ccollections\nOrderedDict\nq\0)Rq\x01(X\x01\0\0\0aq\x02K\x05h\x02\x89M\x01\x02\x86u}(X\x01\0\0\0vK\x01ub.rest";
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(pickle.length(), bytes.len() - 4);
        let entries = pickle.entries(pickle.root()).unwrap();
        assert_eq!(entries[0], (Value::Text("a"), Value::Int(5)));
        assert_eq!(pickle.items(entries[1].1).unwrap(), [Value::Bool(false), Value::Int(0x201)]);
        assert_eq!(pickle.entry(pickle.root(), "a"), Some(entries[1].1), "the last entry of a repeated key counts");
        assert_eq!(pickle.entry(pickle.root(), "b"), None);
    }

    #[test]
    fn reads_integers() {
        for (bytes, expected) in [
            (&b"\x8a\0."[..], 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\0.", 255),
            (b"\x8a\x01\x80.", -128),
            (b"\x8a\x06\0\0\0\0\0\x01.", 1 << 40),
            (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", i64::MAX),
            (b"J\xfe\xff\xff\xff.", -2),
            (b"K\xff.", 255),
            (b"M\xff\xff.", 65535),
        ] {
            assert_eq!(Pickle::read(bytes).unwrap().root().int(), Some(expected));
        }
        assert_eq!(Pickle::read(b"\x8a\x09123456789.").unwrap().root(), Value::Long(b"123456789"));
    }

    #[test]
    fn names_what_it_does_not_execute() {
        for (bytes, expected) in [
            (
                &b"cos\nsystem\n(X\x02\0\0\0lstR."[..],
                "it refers to os.system, which a checkpoint of tensors does not need; nothing was executed",
            ),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93)R.", "it refers to builtins.eval"),
            (b"cbad\x1b[2J\nname\n.", "it refers to bad\\u{1b}[2J.name"),
            (b"(S'ls'\nios\nsystem\n.", "the pickle opcode 0x53"),
            (b"(ios\nsystem\n.", "the pickle opcode 0x69"),
            (b"ccollections\nOrderedDict\n)\x81.", "the pickle opcode 0x81"),
            (b"\x82\x01.", "the pickle opcode 0x82"),
            (b"ctorch\nFloatStorage\n}b.", "sets attributes of an object that is not a state dict"),
            (b"X\x01\0\0\0a)R.", "it calls something that is not a function"),
            (b"ccollections\nOrderedDict\nK\x01\x85R.", "not a list of pairs"),
            (b"ccollections\nOrderedDict\n]K\x01a\x85R.", "is not a pair"),
        ] {
            let message = error(bytes);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
    }

    #[test]
    fn refuses_malformed_pickles() {
        for (bytes, expected) in [
            (&b""[..], "at byte 0: the file is cut off"),
            (b"K", "cut off"),
            (b"X\xff\xff\xff\xffab.", "cut off"),
            (b"\x8d\0\0\0\0\0\0\0\x80ab.", "cut off"),
            (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", "cut off"),
            (b"\x8a\xff1.", "cut off"),
            (b"\x95\xff", "cut off"),
            (b".", "the stack is empty"),
            (b"(.", "a value is missing above a mark"),
            (b"N(\x85.", "a tuple extends past a mark"),
            (b"N\x87.", "too few values"),
            (b"t.", "a mark is missing"),
            (b"q\0.", "the stack is empty"),
            (b"h\x07.", "the memo has no entry 7"),
            (b"j\xff\xff\xff\xff.", "the memo has no entry 4294967295"),
            (b"}(Nu.", "last key has no value"),
            (b"N(NNu.", "sets an item of something that is not a dictionary"),
            (b"NNa.", "appends to something that is not a list"),
            (b"X\x01\0\0\0\xff.", "is not UTF-8"),
            (b"cabc", "a name is not terminated"),
            (b"NN\x93.", "not a string"),
        ] {
            let message = error(bytes);
            assert!(message.contains(expected), "{:?}: {message}\nlacks {expected}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn bombs_do_no_harm() {
        const MANY: usize = MAX_INSTRUCTIONS - 10;
        // Nested a million deep: not read, compared or dropped recursively.
        assert!(Pickle::read(&[&b"N"[..], &b"\x85".repeat(MANY), b"."].concat()).is_ok());
        assert!(Pickle::read(&[&b"]".repeat(MANY / 2)[..], &b"a".repeat(MANY / 2 - 1), b"."].concat()).is_ok());
        // Doubling through the memo: thirty lists, each containing the previous one twice.
        let doubled = (1..30u8).flat_map(|i| [b']', b'q', i, b'h', i - 1, b'a', b'h', i - 1, b'a']).collect::<Vec<_>>();
        assert!(Pickle::read(&[&b"]q\0"[..], &doubled, b"."].concat()).is_ok());
        // OrderedDict called with the same long list again and again.
        let calls = b"ccollections\nOrderedDict\nq\x02h\0\x85R".to_vec();
        let again = b"h\x02h\0\x85R".repeat(MANY / 40);
        let pairs = b"h\x01a".repeat(MANY / 4);
        assert!(Pickle::read(&[b"NN\x86q\x01]q\0", &pairs[..], &calls, &again, b"."].concat()).is_ok());
        // A list that contains itself, and a memo index that would need a table of 2^32 entries.
        assert!(Pickle::read(b"]q\0h\0a.").is_ok());
        assert!(Pickle::read(b"Nr\xff\xff\xff\xff.").is_ok());
        assert!(error(&b"]".repeat(MAX_INSTRUCTIONS + 1)).contains("more than 1000000 instructions"));
        assert!(error(&b"(".repeat(MAX_INSTRUCTIONS + 1)).contains("more than 1000000 instructions"));
        assert!(error(&b"\x80\x02".repeat(MAX_INSTRUCTIONS + 1)).contains("more than 1000000 instructions"));
    }
}
