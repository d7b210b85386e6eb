//! The words of the templates: realistic lines of common systems, written for this program.
//!
//! `%{…}` is drawn anew for each line: `ip`, `uuid`, `hex:N` (N digits), `int:LEAST-MOST`,
//! `pick:a|b|c`, `iso` (`2026-03-01T00:00:00.000Z`), `java` (`2026-03-01 00:00:00,000`), `clf`,
//! `syslog`, `klog` (`0301 00:00:00.000000`) and `uptime` (`   12.000000`, seconds). An entry of several
//! lines is written as a whole, one record per line.

/// The systems: name, entries.
pub(crate) const SYSTEMS: [(&str, &[&str]); 10] = [
    ("web", WEB),
    ("sshd", SSHD),
    ("kernel", KERNEL),
    ("database", DATABASE),
    ("kubernetes", KUBERNETES),
    ("json", JSON),
    ("java", JAVA),
    ("proxy", PROXY),
    ("systemd", SYSTEMD),
    ("mail", MAIL),
];

const WEB: &[&str] = &[
    r#"%{ip} - - [%{clf}] "GET %{pick:/|/index.html|/favicon.ico|/robots.txt|/static/app.js|/static/site.css} HTTP/1.1" %{pick:200|200|200|304} %{int:120-98000} "-" "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0""#,
    r#"%{ip} - user%{int:1-9999} [%{clf}] "POST /api/v1/login HTTP/1.1" %{pick:200|200|401|500} %{int:40-900} "https://shop.example.com/login" "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36""#,
    r#"%{ip} - - [%{clf}] "GET /api/v1/items/%{int:1-900000}?session=%{hex:16} HTTP/2.0" %{pick:200|200|200|404|502} %{int:200-24000} "-" "okhttp/4.12.0" rt=0.%{int:100-999}"#,
    r#"%{ip} - - [%{clf}] "GET /images/%{hex:12}.%{pick:jpg|png|webp} HTTP/1.1" 200 %{int:2000-900000} "https://shop.example.com/items/%{int:1-900000}" "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Mobile/15E148""#,
];

const SSHD: &[&str] = &[
    "%{syslog} %{pick:gate|build|db}-%{int:1-40} sshd[%{int:300-65000}]: Accepted publickey for %{pick:deploy|root|alice|backup} from %{ip} port %{int:1024-65535} ssh2: ED25519 SHA256:%{hex:40}",
    "%{syslog} gate-%{int:1-40} sshd[%{int:300-65000}]: Failed password for invalid user %{pick:admin|test|oracle|ubuntu|guest|pi} from %{ip} port %{int:1024-65535} ssh2",
    "%{syslog} gate-%{int:1-40} sshd[%{int:300-65000}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=%{ip}  user=root",
    "%{syslog} gate-%{int:1-40} sshd[%{int:300-65000}]: Received disconnect from %{ip} port %{int:1024-65535}:11: Bye Bye [preauth]",
    "%{syslog} gate-%{int:1-40} sshd[%{int:300-65000}]: Connection closed by authenticating user root %{ip} port %{int:1024-65535} [preauth]",
];

const KERNEL: &[&str] = &[
    "[%{uptime}] eth%{int:0-3}: Link is %{pick:Up|Down} - %{pick:1Gbps|10Gbps}/Full - flow control rx/tx",
    "[%{uptime}] EXT4-fs (sd%{pick:a|b|c}%{int:1-4}): mounted filesystem %{uuid} r/w with ordered data mode. Quota mode: none.",
    "[%{uptime}] Out of memory: Killed process %{int:300-65000} (%{pick:java|python3|node|postgres}) total-vm:%{int:100000-9000000}kB, anon-rss:%{int:100000-4000000}kB, file-rss:%{int:0-9000}kB, shmem-rss:0kB, UID:1000 pgtables:%{int:100-9000}kB oom_score_adj:0",
    "[%{uptime}] TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:%{int:80-9000}. Sending cookies.",
    "[%{uptime}] audit: type=1400 audit(%{int:1700000000-1799999999}.%{int:100-999}:%{int:1-90000}): apparmor=\"DENIED\" operation=\"open\" profile=\"/usr/sbin/cupsd\" name=\"/proc/%{int:1-65000}/status\" pid=%{int:1-65000} comm=\"cupsd\" requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0",
    "[%{uptime}] nvme nvme%{int:0-3}: I/O tag %{int:0-1023} (%{hex:4}) QID %{int:1-64} timeout, completion polled",
];

const DATABASE: &[&str] = &[
    "%{java} UTC [%{int:300-65000}] app@orders LOG:  duration: %{int:1-9000}.%{int:100-999} ms  statement: SELECT id, total FROM orders WHERE customer_id = %{int:1-9000000} AND state = '%{pick:open|paid|sent|void}' ORDER BY created_at DESC LIMIT 50",
    "%{java} UTC [%{int:300-65000}] app@orders ERROR:  duplicate key value violates unique constraint \"orders_reference_key\"\n%{java} UTC [%{int:300-65000}] app@orders DETAIL:  Key (reference)=(%{uuid}) already exists.",
    "%{java} UTC [%{int:300-65000}] LOG:  checkpoint complete: wrote %{int:10-90000} buffers (%{int:0-99}.%{int:0-9}%); 0 WAL file(s) added, 0 removed, %{int:0-40} recycled; write=%{int:1-270}.%{int:100-999} s, sync=0.%{int:100-999} s, total=%{int:1-270}.%{int:100-999} s",
    "%{java} UTC [%{int:300-65000}] app@orders LOG:  connection authorized: user=app database=orders application_name=api-%{hex:8} SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)",
    "%{java} UTC [%{int:300-65000}] LOG:  automatic vacuum of table \"orders.public.%{pick:orders|items|events|sessions}\": index scans: %{int:0-3}, pages: 0 removed, %{int:100-900000} remain, tuples: %{int:0-90000} removed, %{int:1000-9000000} remain",
];

const KUBERNETES: &[&str] = &[
    "I%{klog} %{int:1-65000} kubelet.go:%{int:1000-2600}] \"SyncLoop (PLEG): event for pod\" pod=\"%{pick:shop|billing|kube-system}/%{pick:api|worker|web|cron}-%{hex:10}-%{hex:5}\" event={\"ID\":\"%{uuid}\",\"Type\":\"Container%{pick:Started|Died}\",\"Data\":\"%{hex:64}\"}",
    "W%{klog} %{int:1-65000} reflector.go:%{int:300-600}] k8s.io/client-go/informers/factory.go:150: watch of *v1.%{pick:Pod|Node|Service|ConfigMap} ended with: too old resource version: %{int:1000000-9999999} (%{int:1000000-9999999})",
    "E%{klog} %{int:1-65000} pod_workers.go:%{int:900-1400}] \"Error syncing pod, skipping\" err=\"failed to \\\"StartContainer\\\" for \\\"%{pick:api|worker|web}\\\" with CrashLoopBackOff: \\\"back-off %{int:10-300}s restarting failed container\\\"\" podUID=\"%{uuid}\"",
    "I%{klog} %{int:1-65000} proxier.go:%{int:700-1600}] \"Opened iptables from-outside chain\" svcPortName=\"%{pick:shop|billing}/%{pick:api|web}:http\" ip=\"%{ip}\" port=%{int:30000-32767}",
];

const JSON: &[&str] = &[
    r#"{"timestamp":"%{iso}","level":"%{pick:info|info|info|warn|error}","service":"%{pick:checkout|cart|search|auth|stock}","trace_id":"%{hex:32}","span_id":"%{hex:16}","message":"request finished","method":"%{pick:GET|POST|PUT}","path":"/api/v1/%{pick:cart|items|users}/%{int:1-900000}","status_code":%{pick:200|200|201|404|500},"duration_ms":%{int:1-4000}}"#,
    r#"{"timestamp":"%{iso}","level":"info","service":"auth","user_id":"%{uuid}","remote":"%{ip}","message":"%{pick:session opened|session refreshed|session closed|grüße aus zürich}"}"#,
    r#"{"timestamp":"%{iso}","level":"error","service":"payment","trace_id":"%{hex:32}","error":{"type":"TimeoutError","message":"upstream %{ip}:%{int:1024-65535} did not answer within %{int:100-9000} ms","retries":%{int:0-5}},"order":"%{uuid}","amount_cents":%{int:100-999999}}"#,
    r#"{"ts":%{int:1700000000-1799999999}.%{int:100000-999999},"lvl":"debug","msg":"cache %{pick:hit|miss|evict}","key":"item:%{int:1-900000}","shard":%{int:0-63},"bytes":%{int:64-65536}}"#,
];

const JAVA: &[&str] = &[
    "%{java} INFO  [http-nio-8080-exec-%{int:1-200}] c.e.shop.web.OrderController - order %{uuid} accepted for customer %{int:1-9000000} in %{int:1-900} ms",
    "%{java} WARN  [HikariPool-1 housekeeper] c.z.hikari.pool.HikariPool - HikariPool-1 - Thread starvation or clock leap detected (housekeeper delta=%{int:1-90}s%{int:1-999}ms).",
    "%{java} DEBUG [kafka-consumer-%{int:0-15}] o.a.k.c.c.internals.Fetcher - [Consumer clientId=shop-%{int:0-15}, groupId=shop] Fetch READ_UNCOMMITTED at offset %{int:1-900000000} for partition events-%{int:0-63} returned fetch data",
    "%{java} ERROR [http-nio-8080-exec-%{int:1-200}] c.e.shop.web.ErrorHandler - request %{hex:16} failed
java.lang.IllegalStateException: order %{uuid} is already %{pick:paid|sent|void}
\tat com.example.shop.order.OrderService.pay(OrderService.java:%{int:20-900})
\tat com.example.shop.web.OrderController.pay(OrderController.java:%{int:20-400})
\tat jdk.internal.reflect.GeneratedMethodAccessor%{int:1-900}.invoke(Unknown Source)
\tat org.springframework.web.method.support.InvocableHandlerMethod.doInvoke(InvocableHandlerMethod.java:255)
\tat java.base/java.lang.Thread.run(Thread.java:1583)
Caused by: java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not available, request timed out after %{int:30000-30999}ms.
\tat com.zaxxer.hikari.pool.HikariPool.createTimeoutException(HikariPool.java:%{int:600-700})
\t... %{int:20-90} common frames omitted",
];

const PROXY: &[&str] = &[
    "%{syslog} lb-%{int:1-8} haproxy[%{int:300-65000}]: %{ip}:%{int:1024-65535} [%{clf}] front~ api/api-%{int:1-64} 0/0/%{int:0-9}/%{int:1-4000}/%{int:1-4000} %{pick:200|200|304|503} %{int:100-90000} - - ---- %{int:1-900}/%{int:1-900}/%{int:0-90}/%{int:0-9}/0 0/0 \"GET /api/v1/%{pick:cart|items|users}/%{int:1-900000} HTTP/1.1\"",
    "%{syslog} lb-%{int:1-8} haproxy[%{int:300-65000}]: Health check for server api/api-%{int:1-64} %{pick:succeeded|failed}, reason: Layer7 check, code: %{pick:200|503}, check duration: %{int:1-900}ms.",
];

const SYSTEMD: &[&str] = &[
    "%{syslog} node-%{int:1-400} systemd[1]: Started session-%{int:1-90000}.scope - Session %{int:1-90000} of User %{pick:root|deploy|backup}.",
    "%{syslog} node-%{int:1-400} systemd[1]: %{pick:api|worker|logrotate|certbot}.service: Deactivated successfully.\n%{syslog} node-%{int:1-400} systemd[1]: %{pick:api|worker|logrotate|certbot}.service: Consumed %{int:1-900}.%{int:100-999}s CPU time.",
    "%{syslog} node-%{int:1-400} CRON[%{int:300-65000}]: (root) CMD (cd / && run-parts --report /etc/cron.%{pick:hourly|daily})",
    "%{syslog} node-%{int:1-400} systemd-resolved[%{int:300-900}]: Using degraded feature set %{pick:UDP|TCP} instead of UDP+EDNS0 for DNS server %{ip}.",
];

const MAIL: &[&str] = &[
    "%{syslog} mx%{int:1-4} postfix/smtpd[%{int:300-65000}]: connect from unknown[%{ip}]",
    "%{syslog} mx%{int:1-4} postfix/qmgr[%{int:300-65000}]: %{hex:10}: from=<bounce+%{hex:8}@news.example.com>, size=%{int:900-90000}, nrcpt=1 (queue active)",
    "%{syslog} mx%{int:1-4} postfix/smtp[%{int:300-65000}]: %{hex:10}: to=<user%{int:1-99999}@example.org>, relay=mx.example.org[%{ip}]:25, delay=%{int:0-9}.%{int:10-99}, delays=0.%{int:10-99}/0/0.%{int:10-99}/0.%{int:10-99}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as %{hex:12})",
];
