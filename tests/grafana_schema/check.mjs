// Compiles every dashboard as a value of the types that Grafana publishes, and spoiled copies that
// must not compile. Usage: node check.mjs FOLDER...
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const here = dirname(fileURLToPath(import.meta.url));

const panelOf = (type, model) => model.panels.find((panel) => panel.type === type);

// Each must be found, or the check looks at nothing.
const spoiled = {
  'an unknown key of a dashboard': (model) => (model.autoRefresh = '5s'),
  'a text as schemaVersion': (model) => (model.schemaVersion = '39'),
  'a crosshair that is none': (model) => (model.graphTooltip = 7),
  'a refresh of a variable that is none': (model) => (model.templating.list[1].refresh = 9),
  'a panel of an unknown type': (model) => (panelOf('timeseries', model).type = 'graph'),
  'a panel without queries': (model) => delete panelOf('timeseries', model).targets,
  'a grid position as text': (model) => (panelOf('timeseries', model).gridPos.w = '12'),
  'an unknown drawing style': (model) =>
    (panelOf('timeseries', model).fieldConfig.defaults.custom.drawStyle = 'lines'),
  'an unknown option': (model) => (panelOf('timeseries', model).options.legends = {}),
  'a threshold without a colour': (model) =>
    delete panelOf('timeseries', model).fieldConfig.defaults.thresholds.steps[0].color,
  'an unknown mode of thresholds': (model) =>
    (panelOf('timeseries', model).fieldConfig.defaults.thresholds.mode = 'abs'),
};

function sources(folders) {
  const wanted = new Map();
  for (const folder of folders) {
    const files = readdirSync(folder).filter((name) => name.endsWith('.json')).sort();
    if (files.length === 0) throw new Error(`${folder} holds no dashboard`);
    for (const file of files) {
      const text = readFileSync(join(folder, file), 'utf8');
      wanted.set(`good ${join(folder, file)}`, JSON.parse(text));
      if (file !== 'health.json') continue;
      for (const [name, spoil] of Object.entries(spoiled)) {
        const model = JSON.parse(text);
        spoil(model);
        wanted.set(`spoiled ${name} in ${join(folder, file)}`, model);
      }
    }
  }
  return wanted;
}

function problems(wanted) {
  const texts = new Map();
  const names = new Map();
  let number = 0;
  for (const [name, model] of wanted) {
    const file = join(here, `dashboard_${number++}.ts`);
    names.set(file, name);
    const body = `import type { Dashboard } from './types';\nexport const dashboard: Dashboard = ${JSON.stringify(model, null, 2)};\n`;
    texts.set(file, body);
  }
  const options = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
  };
  const host = ts.createCompilerHost(options);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (file) => texts.get(file) ?? readFile.call(host, file);
  host.fileExists = (file) => texts.has(file) || fileExists.call(host, file);
  host.getSourceFile = (file, target, ...rest) =>
    texts.has(file)
      ? ts.createSourceFile(file, texts.get(file), target)
      : getSourceFile.call(host, file, target, ...rest);
  const program = ts.createProgram([...texts.keys()], options, host);
  const found = new Map([...names.values()].map((name) => [name, []]));
  for (const one of ts.getPreEmitDiagnostics(program)) {
    const name = names.get(one.file?.fileName);
    const text = ts.flattenDiagnosticMessageText(one.messageText, '\n');
    if (name === undefined) throw new Error(`${one.file?.fileName ?? 'the check itself'}: ${text}`);
    const line = one.file.getLineAndCharacterOfPosition(one.start).line;
    found.get(name).push(`line ${line}: ${text}`);
  }
  return found;
}

const folders = process.argv.slice(2);
if (folders.length === 0) throw new Error('usage: node check.mjs FOLDER...');
const found = problems(sources(folders));
let bad = 0;
for (const [name, list] of found) {
  if (name.startsWith('good ') && list.length > 0) {
    console.error(`${name.slice(5)} does not fit Grafana's types:\n  ${list.join('\n  ')}`);
    bad += 1;
  }
  if (name.startsWith('spoiled ') && list.length === 0) {
    console.error(`not found: ${name.slice(8)}`);
    bad += 1;
  }
}
if (bad > 0) process.exit(1);
console.log(`${found.size} models checked`);
