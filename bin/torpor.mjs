#!/usr/bin/env node
// The command `torpor` of a checkout: builds what is missing or out of date, then runs it.
import { engineOf, main } from "../scripts/run.mjs";
import { setup } from "../scripts/setup.mjs";

await main(async () => {
  await setup({ debug: process.argv.includes("--debug"), engine: engineOf() });
  await import("../build/hosts/node/torpor.js");
  return process.exitCode;
});
