import { command, script } from "./commands.js";
import { cd, env, pwd, writefile } from "./folders.js";
import type { Implementation, MagicCall, MagicHost } from "./host.js";
import { reset, who } from "./names.js";
import { npm } from "./npm.js";
import { run } from "./run.js";
import { help, lsmagic, show } from "./show.js";

/** What each magic of the table does; `%time`, `%timeit` and `%typecheck` are the compiler's. */
const implementations: Record<string, Implementation> = {
  "!": command,
  bash: script,
  cd,
  env,
  help,
  html: show,
  latex: show,
  lsmagic,
  markdown: show,
  npm,
  pwd,
  reset,
  run,
  sh: script,
  svg: show,
  who,
  writefile,
};

/** Does a magic of a compiled cell. */
export async function doMagic(host: MagicHost, call: MagicCall): Promise<void> {
  const implementation = implementations[call.name];
  if (implementation === undefined) throw new Error(`The magic '${call.name}' is known to the compiler alone.`);
  await implementation(host, call);
}
