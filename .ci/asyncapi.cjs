// Validates an AsyncAPI document as `asyncapi validate` does. Exits with status 1 on an error or a
// warning.
const { Parser, fromFile } = require("@asyncapi/parser");

// The parser's severities: 0 is an error, 1 a warning.
const WARNING = 1;

async function main(file) {
  const { diagnostics } = await fromFile(new Parser(), file).parse();
  const found = diagnostics.filter(({ severity }) => severity <= WARNING);
  for (const { code, message, path, range } of found) {
    console.error(`${file}:${range.start.line + 1}: ${message} (${code}, ${path.join(".")})`);
  }
  process.exitCode = found.length ? 1 : 0;
  console.log(`${file}: ${found.length} errors and warnings`);
}

main(process.argv[2]);
