// Bundles the dashboard into dist/ (default), or its unit tests into build/test/ (--tests).
// dist/ needs no other origin: no CDN, no web font, no inline script or style.

import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import path from "node:path";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const at = (...parts) => path.join(here, ...parts);

async function buildPage(watch) {
  await rm(at("dist"), { recursive: true, force: true });
  await mkdir(at("dist"), { recursive: true });
  await cp(at("public"), at("dist"), { recursive: true });
  const options = {
    entryPoints: { app: at("src/main.ts") },
    outdir: at("dist"),
    bundle: true,
    minify: !watch,
    sourcemap: watch ? "linked" : false,
    legalComments: "eof",
    format: "esm",
    target: ["chrome110", "firefox110", "safari16.4"],
    logLevel: "info",
  };
  if (!watch) {
    await esbuild.build(options);
    return;
  }
  const context = await esbuild.context(options);
  await context.watch();
}

async function buildTests() {
  await rm(at("build/test"), { recursive: true, force: true });
  const tests = (await readdir(at("test"))).filter((name) => name.endsWith(".test.ts"));
  await esbuild.build({
    entryPoints: tests.map((name) => at("test", name)),
    outdir: at("build/test"),
    bundle: true,
    platform: "node",
    format: "esm",
    outExtension: { ".js": ".mjs" },
    sourcemap: "inline",
    logLevel: "warning",
  });
}

if (process.argv.includes("--tests")) await buildTests();
else await buildPage(process.argv.includes("--watch"));
