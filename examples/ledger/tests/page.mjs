// Looks at /tasks in a real browser: node page.mjs URL FOLDER. `cargo xtask ledger page` runs it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
const check = (is, what) => { if (!is) throw new Error(what); };
const profile = mkdtempSync(join(tmpdir(), "ledger-page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1180, height: 900 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const page = context.pages()[0] ?? await context.newPage();
  const errors = [], elsewhere = [];
  page.on("pageerror", error => errors.push(String(error)));
  page.on("console", message => { if (message.type() === "error") errors.push(message.text()); });
  page.on("request", request => { if (!request.url().startsWith(new URL(url).origin)) elsewhere.push(request.url()); });
  await page.goto(url);

  // A shielded transfer, whose client still waits: its age, and the budget that it would have.
  const shield = page.locator(".row.shield.running", { hasText: /transfer of \d+ from \d+ to \d+/ }).first();
  await shield.waitFor();
  check(/^[\d.]+ (ms|s)$/.test(await shield.locator(".age").innerText()), "no age");
  check(/budget 5\.0 s/.test(await shield.locator(".budget").innerText()), "no budget");

  // One whose client has gone: what is left of its budget runs down.
  const holding = page.locator(".row.shield.holding").first();
  await holding.waitFor();
  const text = await holding.innerText();
  check(/[\d.]+ (ms|s) of 5\.0 s left/.test(text), "no budget that runs: " + text);
  check(/\d/.test(await page.locator("#counts").innerText()), "no counts");

  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.locator(".row.shield.holding").first().waitFor();
    await page.screenshot({ path: join(folder, `tasks-${scheme}.png`) });
  }
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: join(folder, "tasks-narrow.png") });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  check(!overflow, "on a narrow screen it scrolls sideways");
  check(errors.length === 0, "errors in the page: " + errors.join("; "));
  check(elsewhere.length === 0, "it asks others: " + elsewhere.join(" "));
  console.log("the page shows shielded transfers with age and budget; pictures in " + folder);
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
