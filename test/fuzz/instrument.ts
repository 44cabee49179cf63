/**
 * Coverage for the fuzzers of src/ (guided.ts): a hook of Node.js's module loader that puts a counter into every branch of
 * the compiled modules as they are loaded, and takes note of the literals that they compare with.
 *
 *     register("./instrument.js", import.meta.url);   // then import the modules
 *
 * `coverage` of the global `torporFuzz` counts how often each branch was taken; its `literals` are texts and bytes.
 */

import { readFileSync } from "node:fs";
import type { LoadHook } from "node:module";
import { fileURLToPath } from "node:url";
import ts from "typescript";

/** What is instrumented: the project's own code, not that of the tests. */
const MODULES = /\/build\/(src|hosts\/node)\/.*\.js$/;

/** Counters there are, and those given out. */
export const COUNTERS = 16384;
let used = 0;

export const load: LoadHook = async (url, context, nextLoad) => {
  if (!MODULES.test(url)) {
    return nextLoad(url, context);
  }
  const source = instrument(readFileSync(fileURLToPath(url), "utf8"), url);
  return { format: "module", source, shortCircuit: true };
};

/** The source with counters, behind a line that finds them. */
export function instrument(text: string, name: string): string {
  const literals = new Set<string>();
  const file = ts.createSourceFile(name, text, ts.ScriptTarget.ES2022, true, ts.ScriptKind.JS);
  const { transformed } = ts.transform(file, [(context) => (root) => visitAll(root, context, literals)]);
  const body = ts.createPrinter().printFile(transformed[0]!);
  const head = `const coverage__ = globalThis.torporFuzz.coverage;for (const l of ${JSON.stringify([...literals])}) globalThis.torporFuzz.literals.add(l);\n`;
  return head + body;
}

function visitAll(root: ts.SourceFile, context: ts.TransformationContext, literals: Set<string>): ts.SourceFile {
  const { factory } = context;
  const count = (): ts.Expression => {
    const counter = factory.createElementAccessExpression(factory.createIdentifier("coverage__"), used++ % COUNTERS);
    return factory.createPostfixIncrement(counter);
  };
  const counted = (expression: ts.Expression): ts.Expression =>
    factory.createParenthesizedExpression(factory.createComma(count(), expression));
  const statement = (): ts.Statement => factory.createExpressionStatement(count());
  /** A branch as a block that counts; an `else` that is not there is one, too. */
  const branch = (node: ts.Statement | undefined): ts.Statement =>
    node === undefined || !ts.isBlock(node)
      ? factory.createBlock(node === undefined ? [statement()] : [statement(), node])
      : node;

  const visit = (original: ts.Node): ts.Node => {
    note(original, literals);
    const node = ts.visitEachChild(original, visit, context);
    if (ts.isBlock(node)) {
      return factory.createBlock([statement(), ...node.statements], true);
    }
    if (ts.isIfStatement(node)) {
      return factory.updateIfStatement(node, node.expression, branch(node.thenStatement), branch(node.elseStatement));
    }
    if (ts.isForStatement(node)) {
      const { initializer, condition, incrementor } = node;
      return factory.updateForStatement(node, initializer, condition, incrementor, branch(node.statement));
    }
    if (ts.isWhileStatement(node)) {
      return factory.updateWhileStatement(node, node.expression, branch(node.statement));
    }
    if (ts.isCaseClause(node)) {
      return factory.updateCaseClause(node, node.expression, [statement(), ...node.statements]);
    }
    if (ts.isDefaultClause(node)) {
      return factory.updateDefaultClause(node, [statement(), ...node.statements]);
    }
    if (ts.isConditionalExpression(node)) {
      const { condition, questionToken, whenTrue, colonToken, whenFalse } = node;
      const branches = [counted(whenTrue), counted(whenFalse)] as const;
      return factory.updateConditionalExpression(node, condition, questionToken, branches[0], colonToken, branches[1]);
    }
    if (ts.isBinaryExpression(node) && SHORT_CIRCUITS.has(node.operatorToken.kind)) {
      return factory.updateBinaryExpression(node, node.left, node.operatorToken, counted(node.right));
    }
    return node;
  };
  return ts.visitNode(root, visit) as ts.SourceFile;
}

const SHORT_CIRCUITS = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);

/** Short strings, numbers and lists of bytes, as latin1: what a reader may look for in its input. */
function note(node: ts.Node, literals: Set<string>): void {
  if (ts.isStringLiteral(node) && node.text.length > 0 && node.text.length <= 40 && !node.text.startsWith(".")) {
    literals.add(node.text);
  } else if (ts.isNumericLiteral(node)) {
    let bytes = "";
    for (let value = Number(node.text); value >= 1; value = Math.floor(value / 256)) {
      bytes = String.fromCharCode(value % 256) + bytes;
    }
    if (bytes.length > 0 && bytes.length <= 6) literals.add(bytes);
  } else if (ts.isCallExpression(node) && node.expression.getText().endsWith("Uint8Array.of")) {
    const bytes = node.arguments.map((argument) => (ts.isNumericLiteral(argument) ? Number(argument.text) : -1));
    if (bytes.every((byte) => byte >= 0 && byte < 256)) literals.add(String.fromCharCode(...bytes));
  }
}
