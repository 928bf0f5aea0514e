//! Generates the Arrow builders of the tables in schema/*.yaml into OUT_DIR.
//!
//! For every table with columns `from: core` or `from: wire` it writes a row struct (one named field a column, so that
//! a column added to the schema fails to compile until the engine fills it) and a builder that takes rows and gives a
//! record batch. Types are those of docs/architecture.md, section 2.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::Deserialize;

#[derive(Deserialize)]
struct Table {
    table: String,
    description: String,
    columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    sides: bool,
    from: String,
    description: String,
}

/// How one ClickHouse type travels.
struct Wire {
    /// Type of the field in the row struct.
    field: &'static str,
    /// Type of the column builder and how to make one.
    builder: &'static str,
    new: &'static str,
    /// How `row.NAME` (written `{}`) is appended; a trailing `?` marks what can fail.
    append: &'static str,
    data_type: &'static str,
    nullable: bool,
}

const fn plain(field: &'static str, builder: &'static str, new: &'static str, data_type: &'static str) -> Wire {
    Wire { field, builder, new, append: "append_value({})", data_type, nullable: false }
}

const fn nullable(field: &'static str, builder: &'static str, new: &'static str, data_type: &'static str) -> Wire {
    Wire { field, builder, new, append: "append_option({})", data_type, nullable: true }
}

fn wire(kind: &str) -> Option<Wire> {
    Some(match kind {
        "UInt8" => plain("u8", "UInt8Builder", "UInt8Builder::new()", "DataType::UInt8"),
        "UInt16" => plain("u16", "UInt16Builder", "UInt16Builder::new()", "DataType::UInt16"),
        "UInt32" | "DateTime" | "IPv4" => plain("u32", "UInt32Builder", "UInt32Builder::new()", "DataType::UInt32"),
        "UInt64" => plain("u64", "UInt64Builder", "UInt64Builder::new()", "DataType::UInt64"),
        "Int32" => plain("i32", "Int32Builder", "Int32Builder::new()", "DataType::Int32"),
        "Int64" => plain("i64", "Int64Builder", "Int64Builder::new()", "DataType::Int64"),
        "Float64" => plain("f64", "Float64Builder", "Float64Builder::new()", "DataType::Float64"),
        "Nullable(UInt64)" => nullable("Option<u64>", "UInt64Builder", "UInt64Builder::new()", "DataType::UInt64"),
        "Nullable(Int32)" => nullable("Option<i32>", "Int32Builder", "Int32Builder::new()", "DataType::Int32"),
        "Nullable(Int64)" => nullable("Option<i64>", "Int64Builder", "Int64Builder::new()", "DataType::Int64"),
        "DateTime64(6)" => plain(
            "i64",
            "TimestampMicrosecondBuilder",
            "TimestampMicrosecondBuilder::new().with_timezone(\"UTC\")",
            "DataType::Timestamp(TimeUnit::Microsecond, Some(\"UTC\".into()))",
        ),
        "IPv6" => Wire {
            field: "[u8; 16]",
            builder: "FixedSizeBinaryBuilder",
            new: "FixedSizeBinaryBuilder::new(16)",
            append: "append_value({})?",
            data_type: "DataType::FixedSizeBinary(16)",
            nullable: false,
        },
        "String" => plain("&'a str", "StringBuilder", "StringBuilder::new()", "DataType::Utf8"),
        "LowCardinality(String)" => Wire {
            field: "&'a str",
            builder: "StringDictionaryBuilder<Int32Type>",
            new: "StringDictionaryBuilder::new()",
            append: "append({})?",
            data_type: "DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))",
            nullable: false,
        },
        "Array(String)" | "Array(LowCardinality(String))" => Wire {
            field: "&'a [&'a str]",
            builder: "ListBuilder<StringBuilder>",
            new: "ListBuilder::new(StringBuilder::new()).with_field(item(DataType::Utf8))",
            append: "append_value({}.iter().map(Some))",
            data_type: "DataType::List(item(DataType::Utf8))",
            nullable: false,
        },
        "Array(Float64)" => Wire {
            field: "&'a [f64]",
            builder: "ListBuilder<Float64Builder>",
            new: "ListBuilder::new(Float64Builder::new()).with_field(item(DataType::Float64))",
            append: "append_value({}.iter().copied().map(Some))",
            data_type: "DataType::List(item(DataType::Float64))",
            nullable: false,
        },
        _ => return None,
    })
}

fn type_name(table: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
    };
    table.split('_').map(capital).collect()
}

fn identifier(name: &str) -> String {
    if name == "type" { format!("r#{name}") } else { name.to_string() }
}

/// The columns as they stand in the batch: name, meaning, how they travel.
fn columns(path: &Path, table: &Table) -> Vec<(String, String, Wire)> {
    let mut found = Vec::new();
    for column in table.columns.iter().filter(|column| column.from == "core" || column.from == "wire") {
        let sides: &[&str] = if column.sides { &["_0", "_1"] } else { &[""] };
        for side in sides {
            let way = wire(&column.kind).unwrap_or_else(|| {
                panic!("{}: column {} has type {}, which has no Arrow form", path.display(), column.name, column.kind)
            });
            found.push((format!("{}{side}", column.name), column.description.clone(), way));
        }
    }
    found
}

fn generate(path: &Path, table: &Table, code: &mut String) {
    let columns = columns(path, table);
    if columns.is_empty() {
        return;
    }
    let name = type_name(&table.table);
    let life = if columns.iter().any(|(_, _, way)| way.field.contains("'a")) { "<'a>" } else { "" };
    let elided = if life.is_empty() { "" } else { "<'_>" };
    let (mut fields, mut builders, mut news, mut pushes, mut arrays, mut schema) =
        (String::new(), String::new(), String::new(), String::new(), String::new(), String::new());
    for (column, description, way) in &columns {
        let field = identifier(column);
        let append = way.append.replace("{}", &format!("row.{field}"));
        let _ = writeln!(fields, "    /// {description}\n    pub {field}: {},", way.field);
        let _ = writeln!(builders, "    {field}: {},", way.builder);
        let _ = writeln!(news, "            {field}: {},", way.new);
        let _ = writeln!(pushes, "        self.{field}.{append};");
        let _ = writeln!(arrays, "            Arc::new(self.{field}.finish()),");
        let _ = writeln!(schema, "            Field::new({column:?}, {}, {}),", way.data_type, way.nullable);
    }
    let _ = write!(
        code,
        "/// {description}
pub struct {name}Row{life} {{
{fields}}}

/// Columns of `{table}` under construction.
pub struct {name}Rows {{
    rows: usize,
{builders}}}

impl Default for {name}Rows {{
    fn default() -> Self {{
        Self {{
            rows: 0,
{news}        }}
    }}
}}

impl {name}Rows {{
    /// Adds one row; fails only when a dictionary would need more than 2^31 keys.
    pub fn push(&mut self, row: &{name}Row{elided}) -> Result<(), ArrowError> {{
{pushes}        self.rows += 1;
        Ok(())
    }}

    /// Rows added since the last `finish`.
    pub fn len(&self) -> usize {{
        self.rows
    }}

    pub fn is_empty(&self) -> bool {{
        self.rows == 0
    }}

    /// The rows as one batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {{
        let columns: Vec<ArrayRef> = vec![
{arrays}        ];
        self.rows = 0;
        RecordBatch::try_new(Self::schema(), columns)
    }}

    /// Schema of the batch.
    pub fn schema() -> SchemaRef {{
        Arc::new(Schema::new(vec![
{schema}        ]))
    }}
}}

",
        description = table.description,
        table = table.table,
    );
}

pub fn build() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../schema");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut paths: Vec<PathBuf> = fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| path.file_name().is_some_and(|name| name != "enums.yaml"))
        .collect();
    paths.sort();
    let mut code = String::new();
    for path in paths {
        println!("cargo:rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let table: Table = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        generate(&path, &table, &mut code);
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("rows.rs");
    fs::write(&out, code).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}
