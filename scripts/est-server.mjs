// npm run est-server: builds what is missing or out of date, then starts the development EST server.
import { engineOf, main } from "./run.mjs";
import { setup } from "./setup.mjs";

await main(async () => {
  await setup({ engine: engineOf() });
  await import("../build/tools/est-server/main.js");
  return process.exitCode;
});
