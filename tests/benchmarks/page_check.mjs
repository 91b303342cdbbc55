// Opens report pages in a real Chromium, offline: light, dark and as a phone. Fails on an axe
// violation, a request, a script error, a dialog, or a page wider than its window.
//
//   npm install --prefix /tmp/check axe-core puppeteer-core vnu-jar@23.4.11
//   NODE_PATH=/tmp/check/node_modules CHROMIUM=/usr/bin/chromium \
//     node tests/benchmarks/page_check.mjs runs/demo/*/passk_guard.html
//   java -jar /tmp/check/node_modules/vnu-jar/build/dist/vnu.jar runs/demo/*/passk_guard.html
//
// Screenshots are written beside each page.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const require = createRequire(`${process.env.NODE_PATH}/`);
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = {
  light: [{ width: 1280, height: 900 }, "light"],
  dark: [{ width: 1280, height: 900 }, "dark"],
  phone: [{ width: 390, height: 844, isMobile: true, hasTouch: true, deviceScaleFactor: 2 }, "light"],
};

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox"],
});

async function open(file, view, scheme, page) {
  await page.setOfflineMode(true);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport(view);
  await page.goto(`file://${file}`);
  await page.$$eval("details", (all) => all.forEach((one) => (one.open = true)));
}

async function check(file, name) {
  const [view, scheme] = VIEWS[name];
  const wrong = [];
  const page = await browser.newPage();
  page.on("console", (message) => wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => wrong.push(`dialog ${dialog.message()}`) && dialog.dismiss());
  page.on("request", (request) => /^(data|file):/.test(request.url()) || wrong.push(request.url()));
  await open(file, view, scheme, page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) wrong.push(`${wide} pixels too wide`);
  for (const link of await page.$$("nav a, th button")) await link.click();
  const map = await page.$("figure.heat img");
  if (map) {
    await map.scrollIntoView();
    const box = await map.boundingBox();
    await page.mouse.move(box.x + 0.3 * box.width, box.y + 0.6 * box.height);
    const read = await page.$eval("figure.heat output", (out) => out.textContent);
    if (!read.startsWith("row ")) wrong.push(`the heat map says "${read}"`);
  }
  await page.screenshot({ path: file.replace(/\.html$/, `-${name}.png`), fullPage: true });
  await page.close();
  const bare = await browser.newPage();
  await bare.setBypassCSP(true); // axe is a script of ours
  await open(file, view, scheme, bare);
  await bare.evaluate(axe);
  const found = await bare.evaluate(() => window.axe.run());
  await bare.close();
  for (const one of found.violations) wrong.push(`axe ${one.id}: ${one.nodes[0].html}`);
  console.log(`${file} ${name}: ${found.passes.length} axe rules pass; ${wrong.join("; ") || "fine"}`);
  return wrong.length;
}

let failures = 0;
for (const file of process.argv.slice(2)) {
  for (const name of Object.keys(VIEWS)) failures += await check(resolve(file), name);
}
await browser.close();
process.exit(failures ? 1 : 0);
