// Prints every token of some files, one JSON array a line: file, offset, text, scopes.
// node tokenise.js MODULES GRAMMAR FILE…
const fs = require("fs");
const [modules, grammar, ...files] = process.argv.slice(2);
const from = (name) => require(require.resolve(name, { paths: [modules] }));
const { INITIAL, Registry, parseRawGrammar } = from("vscode-textmate");
const { OnigScanner, OnigString, loadWASM } = from("vscode-oniguruma");

(async () => {
  const wasm = require.resolve("vscode-oniguruma/release/onig.wasm", { paths: [modules] });
  await loadWASM(fs.readFileSync(wasm).buffer);
  const registry = new Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new OnigScanner(patterns),
      createOnigString: (text) => new OnigString(text),
    }),
    loadGrammar: async () => parseRawGrammar(fs.readFileSync(grammar, "utf8"), grammar),
  });
  const vgg = await registry.loadGrammar("source.vgg");
  for (const file of files) {
    let state = INITIAL;
    let offset = 0;
    for (const line of fs.readFileSync(file, "utf8").split("\n")) {
      const { tokens, ruleStack } = vgg.tokenizeLine(line, state);
      state = ruleStack;
      for (const { startIndex, endIndex, scopes } of tokens) {
        const text = line.slice(startIndex, endIndex);
        console.log(JSON.stringify([file, offset + startIndex, text, scopes]));
      }
      offset += line.length + 1;
    }
  }
})();
