"""Keys and tokens that carry a prefix, so that scanners can find leaked ones.

Forms are those that the issuers document (GitHub "Behind GitHub's new authentication token formats", GitLab
token prefixes, Slack, Stripe, Google, Twilio, Azure, Atlassian and the other names below), and those that the
partners of public secret scanning programs register.

Not covered: tokens without a mark of their own, unless their name or "Bearer" stands before them (secret.py).
"""

from __future__ import annotations

import re

from rsc.review.scanner.rules.borders import NOT_GOING_ON, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule

EDGE, END = NOT_IN_WORD, NOT_GOING_ON
_HEX = "[a-f0-9]"
_ANY = "[A-Za-z0-9_-]"
_COMMON = (
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    rf"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|imt|agent|oas|ffct|wt)-{_ANY}{{20,128}}(?:\.[0-9a-z.]{{2,20}})?",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",
    r"xapp-[0-9]-[A-Za-z0-9-]{30,160}",
    r"xoxe\.xox[bp]-[0-9]-[A-Za-z0-9]{100,200}",
    r"(?:sk|rk|pk)_(?:live|test|prod)_[A-Za-z0-9]{10,128}",
    rf"AIza{_ANY}{{35}}",
    rf"GOCSPX-{_ANY}{{28}}",
    rf"ya29\.{_ANY}{{20,250}}",
    r"npm_[A-Za-z0-9]{36}",
    rf"pypi-{_ANY}{{50,250}}",
    rf"sk-(?:proj-|ant-[a-z0-9]{{3,8}}-)?{_ANY}{{20,200}}",
    r"hf_[A-Za-z0-9]{30,64}",
    rf"SG\.{_ANY}{{22}}\.{_ANY}{{43}}",
    rf"do[opr]_v1_{_HEX}{{64}}",
    rf"dapi{_HEX}{{32}}",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    rf"sq0(?:atp|csp)-{_ANY}{{22,43}}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    rf"hv[sb]\.{_ANY}{{24,200}}",
    rf"[0-9]{{8,10}}:AA{_ANY}{{33}}",  # Telegram bots
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{30,120}",
)
_COMMON_TRIGGER = (
    r"gh[pousr]_[A-Za-z0-9]|github_pat_|gl[a-z]{2,5}-[A-Za-z0-9_-]{8}|xox[abeoprs]-|xapp-[0-9]"
    r"|[srp]k_(?:live|test|prod)_|AIza[A-Za-z0-9_-]{4}|GOCSPX-"
    r"|ya29\.|npm_[A-Za-z0-9]|pypi-[A-Za-z0-9_-]{4}|sk-[A-Za-z0-9_-]{8}|hf_[A-Za-z0-9]{4}|SG\.[A-Za-z0-9_-]"
    r"|do[opr]_v1_|dapi[a-f0-9]{8}|shp(?:at|ca|pa|ss)_|sq0(?:atp|csp)-|AGE-SECRET-KEY-1|hv[sb]\.[A-Za-z0-9_-]{2}"
    r"|[0-9]{8}:AA|hooks\.slack\.com/(?:services|workflows|triggers)/"
)
_UUID = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_OTHERS: tuple[tuple[str, str], ...] = (
    ("whsec_", "[A-Za-z0-9+/=]{24,64}"),  # Stripe, Svix
    ("key-", f"{_HEX}{{32}}"),  # Mailgun
    ("EAA", f"{_ANY}{{40,250}}"),  # Square, Meta
    ("AccountKey=", "[A-Za-z0-9+/]{86}=="),  # Azure storage
    (r"dp\.(?:pt|st|ct|sa|scim|audit)\.", "[A-Za-z0-9.]{40,60}"),  # Doppler
    ("lin_(?:api|oauth)_", "[A-Za-z0-9]{32,64}"),
    ("PMAK-", f"{_HEX}{{24}}-{_HEX}{{34}}"),
    ("NR(?:AK|JS|II|IQ)-", "[A-Za-z0-9_-]{19,36}"),
    ("glsa_", f"[A-Za-z0-9]{{32}}_{_HEX}{{8}}"),
    ("glc_", "[A-Za-z0-9+/=]{32,400}"),
    ("sntry[su]_", "[A-Za-z0-9+/=_-]{40,400}"),
    (r"discord(?:app)?\.com/api/webhooks/", f"[0-9]{{17,20}}/{_ANY}{{60,80}}"),
    ("figd_", f"{_ANY}{{38,44}}"),
    ("ntn_", "[A-Za-z0-9]{40,50}"),
    ("secret_", "[A-Za-z0-9]{43}"),  # Notion
    ("AT(?:ATT|CTT|BB)", "[A-Za-z0-9_=-]{24,250}"),  # Atlassian
    ("dckr_[op]at_", f"{_ANY}{{27,32}}"),
    (r"v1\.0-", f"{_HEX}{{24}}-{_HEX}{{146}}"),  # Cloudflare
    ("pscale_(?:tkn|oauth|pw)_", "[A-Za-z0-9_.=-]{32,64}"),
    ("sb[pa]_", f"{_HEX}{{40}}"),
    ("fm2_", "[A-Za-z0-9+/=,_-]{100,700}"),
    ("rubygems_", f"{_HEX}{{48}}"),
    ("gsk_", "[A-Za-z0-9]{48,56}"),
    ("r8_", "[A-Za-z0-9]{37,40}"),
    ("pplx-", "[A-Za-z0-9]{40,56}"),
    ("xai-", "[A-Za-z0-9]{70,90}"),
    ("lsv2_[ps][tk]_", f"{_HEX}{{32}}_{_HEX}{{10}}"),
    (r"[sp]k\.eyJ", rf"{_ANY}{{40,160}}\.{_ANY}{{20,30}}"),  # Mapbox
    ("LTAI", "[A-Za-z0-9]{12,24}"),  # Alibaba
    ("AKID", "[A-Za-z0-9]{32}"),  # Tencent
    ("EZ[AT]K", "[A-Za-z0-9]{54}"),
    ("FLW(?:SECK|PUBK)(?:_TEST)?-", f"{_HEX}{{32}}-X"),
    ("xkeysib-", f"{_HEX}{{64}}-[A-Za-z0-9]{{16}}"),  # Brevo
    ("HRKU-", "[a-f0-9A-Z_-]{36,64}"),
    (r"dt0[a-z]01\.", r"[A-Z0-9]{24}\.[A-Z0-9]{64}"),  # Dynatrace
    ("tskey-", "[a-z]{3,8}-[A-Za-z0-9]{10,20}(?:-[A-Za-z0-9]{20,40})?"),
    ("ABSK", "[A-Za-z0-9+/=]{109,269}"),  # Amazon Bedrock
    (r"amzn\.mws\.", _UUID),
    (r"amzn1\.oa2-cs\.v1\.", f"{_HEX}{{64}}"),
    (r"access_token\$production\$", rf"[0-9a-z]{{16}}\${_HEX}{{32}}"),  # Braintree
    ("rzp_(?:live|test)_", "[A-Za-z0-9]{14,24}"),
    ("shippo_(?:live|test)_", "[A-Fa-f0-9]{40}"),
    ("duffel_(?:live|test)_", "[A-Za-z0-9_=-]{43}"),
    ("(?:live|test)_(?:pub_)?", f"{_HEX}{{35}}"),  # Lob
    ("access-(?:sandbox|development|production)-", _UUID),  # Plaid
    ("pat-(?:na|eu|ap)[0-9]-", _UUID),  # HubSpot
    ("p8e-", "[A-Za-z0-9]{32}"),  # Adobe
    ("AKC", "[A-Za-z0-9]{10,80}"),  # JFrog
    ("cmVmdGtu", "[A-Za-z0-9]{56}"),
    ("CLOJARS_", "[a-z0-9]{60}"),
    ("fio-u-", "[A-Za-z0-9_=-]{64}"),  # Frame.io
    ("GR1348941", f"{_ANY}{{20}}"),  # GitLab runners
    ("eyJrIjoi", "[A-Za-z0-9]{70,400}={0,3}"),  # Grafana
    (r"[ps]at\.[A-Za-z0-9_-]{22}\.", rf"{_HEX}{{24}}\.[A-Za-z0-9]{{20}}"),  # Harness
    ("ico-", "[A-Za-z0-9]{32}"),  # Infracost
    ("s-s4t2(?:ud|af)-", f"{_HEX}{{64}}"),
    ("oy2", "[a-z0-9]{43}"),  # NuGet
    ("sha256~", f"{_ANY}{{43}}"),  # OpenShift
    ("pnu_", "[A-Za-z0-9]{36}"),  # Prefect
    ("pul-", f"{_HEX}{{40}}"),  # Pulumi
    ("rdme_", "[a-z0-9]{70}"),
    ("tk-us-", f"{_ANY}{{48}}"),  # Scalingo
    ("sm_(?:aat|pat|sat)_", "[A-Za-z0-9]{16}"),
    ("sgp_", rf"(?:(?:local|{_HEX}{{16}})_)?{_HEX}{{40}}"),  # Sourcegraph
    ("slk_", f"{_HEX}{{64}}"),
    ("tfp_", "[A-Za-z0-9_.=-]{40,64}"),  # Typeform
    (r"t1\.[A-Z0-9a-z_-]{20}", r"[A-Z0-9a-z_-]{0,400}={0,2}\.[A-Z0-9a-z_-]{86}={0,2}"),  # Yandex
    ("AQVN", f"{_ANY}{{35,38}}"),
    ("ops_eyJ", "[A-Za-z0-9+/]{120,900}={0,3}"),  # 1Password
    ("A3-[A-Z0-9]{6}-", "[A-Z0-9]{5,11}(?:-[A-Z0-9]{5,6}){3,4}"),
    ("CFPAT-", f"{_ANY}{{43}}"),  # Contentful
    ("f[mo]1_", f"{_ANY}{{43,700}}"),  # Fly.io
    ("API-", "[A-Z0-9]{26,36}"),  # Octopus
    ("pcsk_", f"{_ANY}{{40,80}}"),  # Pinecone
    ("sb_secret_", f"{_ANY}{{20,64}}"),  # Supabase
    ("nfp_", "[A-Za-z0-9]{36}"),  # Netlify
    ("bk[a-z]{1,2}_", f"{_HEX}{{40}}"),  # Buildkite
    ("rnd_", "[A-Za-z0-9]{28,40}"),  # Render
    (r"sl\.", rf"(?:u\.)?{_ANY}{{60,200}}"),  # Dropbox
    (f"(?:sdk|api|mob)-{_HEX}{{8}}-", f"{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"),  # LaunchDarkly
    ("sq[apu]_", f"{_HEX}{{40}}"),  # SonarQube
    ("fw_[A-Za-z0-9]{8}", "[A-Za-z0-9]{14,16}"),  # Fireworks
    ("GOOG1E", "[A-Z0-9]{55}"),  # Google Cloud Storage, HMAC
    (f"sk_{_HEX}{{8}}", f"(?:{_HEX}{{40}}|-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}})"),
    ("napi_", "[a-z0-9]{64}"),  # Neon
    (f"key_{_HEX}{{8}}", f"{_HEX}{{56}}"),
    ("tk_[a-z0-9]{8}", "[a-z0-9]{21}"),
    ("gta_", f"{_HEX}{{40}}"),
    ("ALTAK", "[A-Za-z0-9]{21}"),  # Baidu
    ("FLWSECK_TEST-", "[a-h0-9]{12}"),
    ("SSWS ", f"00{_ANY}{{40}}"),  # Okta
    ("2[A-Za-z0-9]{26}_", "[A-Za-z0-9]{20,22}"),  # ngrok
    ("[0-2]/[0-9]{16}/", f"[0-9]{{16}}:{_HEX}{{32}}"),  # Asana
    ("ZXlK", "[A-Za-z0-9+/]{40,4096}={0,2}"),  # a JSON web token in base64 once more
    (r"mfa\.", f"{_ANY}{{60,100}}"),  # Discord
    ("AAAAAAAAA", "[A-Za-z0-9%_-]{80,160}"),  # X, application tokens
    ("AAAA[A-Za-z0-9_-]{7}:", f"{_ANY}{{140}}"),  # Firebase messaging
    ("pubkey-", f"{_HEX}{{32}}"),  # Mailgun
    ("api_org_", "[A-Za-z]{34}"),  # Hugging Face
    ("vc[pkrai]{1,2}_", "[A-Za-z0-9]{24,60}"),  # Vercel
    (r"s\.[A-Za-z0-9]{8}", "[A-Za-z0-9]{16}"),  # Vault before version 1.10
    (r"webhook\.office\.com/webhookb2/", "[A-Za-z0-9@/-]{40,180}"),  # Teams
    (r"zapier\.com/hooks/catch/", "[A-Za-z0-9/]{8,40}"),
)
"""What a token begins with, in the subset of the engines, and how it goes on."""
_ELSEWHERE = (
    r"(?:SK|AC)[a-z0-9]{32}",  # Twilio
    rf"{_HEX}{{32}}-us[0-9]{{1,2}}",  # Mailchimp
    r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,37}",  # Microsoft Entra
    rf"pat[A-Za-z0-9]{{14}}\.{_HEX}{{64}}",  # Airtable
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}",  # Terraform Cloud
    r"(?<=[=:\"' ])AP[0-9A-F][A-Za-z0-9]{8,80}",  # Artifactory
    r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",  # MaxMind
    rf"{_HEX}{{32}}-{_HEX}{{8}}-{_HEX}{{8}}",  # Mailgun, signing
    rf"[MNO]{_ANY}{{23,27}}\.{_ANY}{{6}}\.{_ANY}{{27,38}}",  # Discord bots
)
_ELSEWHERE_TRIGGER = (
    rf"(?:SK|AC)[a-z0-9]{{32}}|AP[0-9A-F][A-Za-z0-9]{{8}}|{_HEX}{{32}}-us[0-9]|[0-9]Q~[A-Za-z0-9_~.-]{{31}}|pat[A-Za-z0-9]{{14}}\.{_HEX}{{8}}"
    rf"|[A-Za-z0-9]{{14}}\.atlasv1\.|[A-Za-z0-9]{{29}}_mmk|{_HEX}{{32}}-{_HEX}{{8}}-|[MNO]{_ANY}{{23,27}}\.{_ANY}{{6}}\.{_ANY}{{8}}"
)

RULES = (
    Rule(
        "prefixed_token",
        "secret",
        _COMMON_TRIGGER,
        26,
        re.compile(rf"{EDGE}(?:{'|'.join(_COMMON)}){END}"),
        strength=0,
        head=re.compile(_COMMON_TRIGGER.replace("[0-9]{8}:AA", "[0-9]{8,10}:AA")),
    ),
    Rule(
        "issued_token",
        "secret",
        "|".join(prefix for prefix, _ in _OTHERS),
        31,
        re.compile(rf"{EDGE}(?:{'|'.join(map(''.join, _OTHERS))}){END}"),
        strength=0,
        least=3,
        head=re.compile(rf"{EDGE}(?:{'|'.join(prefix for prefix, _ in _OTHERS)})"),
    ),
    Rule(
        "marked_token",
        "secret",
        _ELSEWHERE_TRIGGER,
        43,
        re.compile(rf"{EDGE}(?:{'|'.join(_ELSEWHERE)}){END}"),
        strength=0,
        least=11,
        reach=90,
    ),
)
