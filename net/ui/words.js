// All words of the page.

export const W = {
  q: 'Text to find',
  qHint: 'text to find, Enter runs',
  regex: 'Regular expression',
  case: 'Match case',
  include: 'Must also match (Shift-Enter)',
  exclude: 'Must not match (Alt-Enter)',
  run: 'Run', stop: 'Stop', live: 'Live',
  topics: 'Topics', allTopics: 'All topics',
  /** @param {number} n */ someTopics: (n) => `${n} topics`,
  from: 'From', to: 'To', now: 'now',
  preset: 'Range',
  presets: { '': 'Range…', '5m': 'Last 5 minutes', '15m': 'Last 15 minutes', '1h': 'Last hour', '6h': 'Last 6 hours', '24h': 'Last day', '7d': 'Last 7 days', all: 'All there is' },
  order: 'Order', orders: { desc: 'Newest first', asc: 'Oldest first' },
  tz: 'Time zone', zones: { local: 'Local time', UTC: 'UTC' },
  wrap: 'Wrap', link: 'Copy link', download: 'Text', downloadJson: 'NDJSON', downloads: 'Download', saved: 'Saved',
  theme: { system: 'Theme: system', dark: 'Theme: dark', light: 'Theme: light' },
  help: 'Keys', rows: 'Records', chart: 'Histogram', close: 'Close',
  loadAll: 'Load all',
  edited: 'The query was edited and not run: these are the rows of the one before. Enter runs it.',
  searching: 'searching…', moreOnScroll: 'more on scroll', complete: 'complete', notComplete: 'incomplete',
  /** @param {string} size @param {string} blocks */ scanned: (size, blocks) => `${size} scanned · ${blocks} blocks skipped`,
  /** @param {string} size */ memory: (size) => `${size} in memory`,
  stopped: 'Stopped: there may be more.',
  brokeOff: 'The answer broke off: there may be more rows than are shown.', readOn: 'Read on',
  offline: 'The node cannot be reached.',
  noMatch: 'Nothing matches.',
  widen: 'Search the last 7 days', anyCase: 'Ignore case',
  /** @param {string} time */ newest: (time) => `The newest record came at ${time}.`,
  nothingKept: 'Nothing is kept here yet. Send something:',
  liveOn: 'live', livePaused: 'paused', liveOff: 'The node is gone: it is tried again, and nothing is lost that it has.',
  /** @param {string} words */ liveRefused: (words) => `Live waits: ${words}. It is tried again.`,
  /** @param {string} reason */ liveEnded: (reason) => `The node has ended the stream: ${reason}.`,
  /** @param {string} spans */ liveGap: (spans) => `Of what was made up for, ${spans} could not be searched: a query of that time shows which.`,
  /** @param {string} n */ rate: (n) => `${n} rows/s`,
  /** @param {string} n */ unseen: (n) => `${n} new ↓`,
  /** @param {string} n */ dropped: (n) => `${n} let go above`,
  /** @param {string} n */ missed: (n) => `${n} came too fast and are not shown: a query finds them.`,
  save: 'Save', saveAs: 'Save this query as', history: 'Lately', exported: 'As JSON', forget: 'Forget',
  downloaded: 'downloaded', downloadHint: 'All that matches, as text. One that is incomplete ends as failed, or has it in its name.',
  downloadJsonHint: 'All that matches, one object a line. The last line says whether it is complete.',
  send: [
    ['a line', 'echo hello | nc -N HOST 7651'],
    ['a file', 'curl --data-binary @FILE URLrecords'],
    ['a program', 'app | oklogd forward HOST'],
  ],
  incomplete: 'Incomplete: a part of the range could not be searched.',
  /** @param {number} n */ andMore: (n) => `and ${n} more`,
  /** @param {string} node @param {string} reason */ gap: (node, reason) => `${node}: ${reason}`,
  /** @param {number} s */ retry: (s) => `Tried again in ${s} s.`,
  unauthorized: 'A token is asked for, and this page has none that is taken.',
  forbidden: 'What you have does not give you the right to this.',
  trouble: 'This node is in trouble; what is shown is what it can show:',
  tooMany: 'Too many requests.',
  token: 'Token', useToken: 'Use it', badToken: 'A token has letters, digits and signs of ASCII only.',
  planOf: (/** @type {string} */ segments, /** @type {string} */ nodes, /** @type {string} */ bytes) => `${segments} on ${nodes}, at most ${bytes}`,
  noPlan: 'no plan', refused: 'the query was refused', noChart: 'no histogram',
  copied: 'copied', linkCopied: 'link copied', copyFailed: 'the browser did not let it be copied',
  notText: 'is no text: its bytes are shown as \\xNN, and copied so',
  /** @param {string} n @param {string} of */ drawn: (n, of) => `${n} of ${of} characters are drawn; Copy takes all of them.`, drawMore: 'Draw more',
  copy: 'Copy', context: 'Context', details: 'Details', fields: 'Fields',
  column: 'Column', columnGo: 'No column any longer', heads: { time: 'time', level: 'level', topic: 'topic', text: 'record' },
  /** @param {string} records */ ofLoaded: (records) => `Of ${records} loaded.`,
  /** @param {string} n @param {string} of */ sampled: (n, of) => `Of ${n} of ${of} records loaded, evenly chosen.`,
  noFields: 'None of them is JSON or logfmt.', share: 'Share', valueHint: 'Click: must also match. Alt-click: must not match.',
  copyAs: 'Copy as', asCurl: 'curl', asOklogd: 'oklogd query', commandCopied: 'command copied',
  inList: 'In the list', inPanel: 'Beside the list', noneAround: 'Nothing around it any longer', before50: '50 more before', after50: '50 more after', asRows: 'As rows', chartHelp: 'Histogram: arrow keys choose, with Shift a span, Enter zooms in',
  noContext: 'no context', chartHeads: ['From', 'Records'], by: 'Bars by', bys: { '': 'by topic', level: 'by level' }, noLevel: 'no level', counting: 'counting…',
  rest: 'others', perBucket: 'bars of',
  keys: [
    ['/', 'query'], ['Enter', 'run · details'], ['Shift-Enter', 'must also match'], ['Alt-Enter', 'must not match'],
    ['j k', 'rows'], ['g G', 'first · last'], ['n N', 'next · previous match'], ['c', 'context'], ['f', 'fields'], ['y', 'copy the record'],
    ['l', 'copy a link to the row'], ['w', 'wrap'], ['t', 'time range'], ['[ ]', 'shift the range'],
    ['Space', 'pause'], ['Esc', 'back'], ['?', 'these keys'],
  ],
};

/** @param {number} n @param {string} one */
export const count = (n, one) => `${number(n)} ${one}${n === 1 ? '' : 's'}`;

const numbers = new Intl.NumberFormat('en');
/** @param {number} n */
export const number = (n) => numbers.format(n);

/** @param {number} n */
export function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) { n /= 1000; at++; }
  return `${n < 10 && at > 0 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}

/** @param {number} ms */
export function span(ms) {
  const units = [[86400e3, 'd'], [3600e3, 'h'], [60e3, 'm'], [1e3, 's']];
  for (const [unit, name] of units) {
    if (ms >= Number(unit)) { const n = ms / Number(unit); return `${n < 10 ? Number(n.toFixed(1)) : Math.round(n)} ${name}`; }
  }
  return `${Math.round(ms)} ms`;
}

/** Those of the overview. */
export const O = {
  title: 'Overview', search: 'Search',
  health: 'This node', ready: 'takes records', trouble: 'in trouble',
  records: 'Records', ofText: 'of text', perSecond: 'records/s', how: 'How to send',
  entries: 'Entries', entriesOf: 'of POST /log and /logs, last 24 h', levels: 'By level', services: 'By service', otherServices: 'of further services',
  cluster: 'Nodes and disks', nodes: 'nodes',
  /** @param {number} all @param {number} not */ notUp: (all, not) => `${all}, ${not} not up`,
  backlog: 'not in stores yet', leastFree: 'free on the fullest disk', volumes: 'volumes', under: 'below their copies', over: 'above them', moving: 'moving',
  columns: ['Node', 'State', 'Roles', 'Not in stores yet', 'Free', 'Version'], asked: '(this one)',
  insecure: 'Whoever reaches its ports is believed to be a member of this cluster: it has no secret.',
  newest: 'Newest records', pause: 'Pause', goOn: 'Go on', unseen: 'new', leftOut: 'came too fast and are not shown', toRow: 'Show it among the records around it',
  send: 'Send an entry', fields: { level: 'Level', service: 'Service', message: 'Message' }, sendIt: 'Send',
  accepted: 'Accepted, on disk:', showIt: 'Show it', notSent: 'Not accepted.',
  noSense: 'The answer makes no sense', gone: 'A part of the overview has no answer.', back: 'Every part of the overview has answers again.',
};
