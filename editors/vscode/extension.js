// Starts `vggc lsp` when a .vgg file is opened, and stops it with the window.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async () => {
  const command = workspace.getConfiguration("vgg").get("command");
  const watcher = workspace.createFileSystemWatcher("**/*.vgg");
  client = new LanguageClient(
    "vgg",
    "vggc",
    { command, args: ["lsp"] },
    { documentSelector: [{ language: "vgg" }], synchronize: { fileEvents: watcher } },
  );
  await client.start();
};

exports.deactivate = () => client?.stop();
