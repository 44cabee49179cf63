/**
 * What the portable tests use of mocha, for XS: describe, it and hooks, which collect while the test file is loaded, and
 * a run that reports each failure and the counts.
 *
 *     import run from "./mocha.js";   // before the test file
 */

type Body = (this: object) => void | Promise<void>;

interface Suite {
  readonly title: string;
  readonly tests: { readonly title: string; readonly body: Body }[];
  readonly suites: Suite[];
  readonly before: Body[];
  readonly after: Body[];
  readonly beforeEach: Body[];
  readonly afterEach: Body[];
}

const newSuite = (title: string): Suite => ({
  title,
  tests: [],
  suites: [],
  before: [],
  after: [],
  beforeEach: [],
  afterEach: [],
});

const root = newSuite("");
let current = root;

Object.assign(globalThis, {
  describe(title: string, body: () => void) {
    const above = current;
    current = newSuite(title);
    above.suites.push(current);
    body();
    current = above;
  },
  it: (title: string, body: Body) => current.tests.push({ title, body }),
  before: (body: Body) => current.before.push(body),
  after: (body: Body) => current.after.push(body),
  beforeEach: (body: Body) => current.beforeEach.push(body),
  afterEach: (body: Body) => current.afterEach.push(body),
});

/** What `this.timeout(…)` and its like are called on. */
const context = { timeout: () => context, slow: () => context };

// Numbers, not an object: what was made while loading is read-only in the device's clone, but for variables.
let passed = 0;
let failed = 0;

function report(): void {
  native("xs_host_report").call(undefined, `{"passed":${passed},"failed":${failed}}`, failed > 0 ? 1 : 0);
}

async function runSuite(suite: Suite, path: string, each: { before: Body[]; after: Body[] }): Promise<void> {
  const name = path === "" ? suite.title : `${path} ${suite.title}`;
  const around = { before: [...each.before, ...suite.beforeEach], after: [...suite.afterEach, ...each.after] };
  for (const hook of suite.before) {
    await hook.call(context);
  }
  for (const { title, body } of suite.tests) {
    try {
      for (const hook of around.before) {
        await hook.call(context);
      }
      await body.call(context);
      for (const hook of around.after) {
        await hook.call(context);
      }
      passed++;
    } catch (error) {
      failed++;
      native("xs_host_trace").call(undefined, `  failed in XS: ${name} ${title}\n    ${error}\n`);
    }
  }
  for (const inner of suite.suites) {
    await runSuite(inner, name, around);
  }
  for (const hook of suite.after) {
    await hook.call(context);
  }
}

/** Runs what was collected and reports; the exit status is 1 where anything failed. */
export default function run(): void {
  runSuite(root, "", { before: [], after: [] }).then(report, (error) => {
    failed++;
    native("xs_host_trace").call(undefined, `  failed in XS: a hook\n    ${error}\n`);
    report();
  });
}
