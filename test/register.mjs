// Lets mocha load the TypeScript sources as ES modules: mocha --import ./test/register.mjs FILE…
import { register } from "node:module";

register("ts-node/esm", import.meta.url);
