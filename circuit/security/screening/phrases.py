"""How people write who want a model to take what it reads for orders, in the languages in which that is common.

A pattern says what is not said to people: that instructions before this one do not count, that the reader is a model,
that it has another role from now on, that it should tell what it was told in secret. They are written for texts as
`lookalikes` makes them, in small letters without accents, for RE2. A phrase that also stands in manuals, letters and
code is none.
"""

from __future__ import annotations

_APART = r"\x{0}-/:-@\[-`{-\x{bf}\x{2000}-\x{206f}\x{3000}-\x{303f}"
_LETTER = r"[0-9a-z\x{c0}-\x{1fff}\x{2c00}-\x{2fff}\x{3040}-\x{10ffff}]"
"""Whole blocks: the exact classes of Unicode are hundreds of ranges each, which no repetition could afford."""
_GAP = f"[{_APART}]{{1,4}}"
"""Between two words, also over the end of a line."""
_AI = r"(?:ai|a\.i\.|llm|large language model|language model|chatbot|ai model|ai assistant|ai agent|assistant model)"
_AIS = rf"(?:{_AI}s?|assistants?|chatgpt|gpt-?\d?o?|claude|gemini|copilot|grok|bot|agents?)"


def _words(text: str) -> str:
    """`text` with any space between its words."""
    return text.replace(r"\pL", _LETTER).replace(" ", f"(?:{_GAP})")


def _any(most: int) -> str:
    """Up to so many words, each with the space before it."""
    return f"(?:{_GAP}{_LETTER}+){{0,{most}}}"


_STOP = r"(?:ignore|disregard|forget|discard|neglect|do not follow|don'?t follow|do not obey|stop following|never mind)"
_ORDERS = r"(?:instructions?|prompts?|directions|directives?|commands?|orders|guidelines?|rules|programming|guardrails)"
_BEFORE = r"(?:previous|previously|prior|above|preceding|earlier|foregoing|former|initial|original)"
_ENGLISH = (
    # ignore all (of the) previous instructions; forget your rules; disregard the instructions above
    rf"\b{_STOP}{_any(3)} {_BEFORE}(?: (?:and|or) \pL+)?{_any(2)} {_ORDERS}\b",
    rf"\b{_STOP}{_any(2)} {_ORDERS}{_any(3)} (?:above|before this|before|previously|earlier|so far|until now)\b",
    rf"\b{_STOP} (?:all )?(?:of )?your (?:\pL+ )?(?:{_ORDERS}|training|system prompt)\b",
    rf"\b{_STOP} (?:all )?(?:of )?(?:the |any )?(?:system prompt|system instructions?|developer message"
    rf"|all instructions)",
    rf"\b{_STOP} all (?:the |other )?(?:instructions|prompts)\b",
    rf"\b{_STOP} (?:everything|anything|all(?: that)?)(?: you (?:were|have been|are))? (?:told|instructed|said) ?",
    r"\b(?:ignore|disregard|forget) (?:everything|anything|all) (?:above|before this|said before)\b",
    r"\boverride (?:all )?(?:of )?(?:your|previous|prior|the system) (?:\pL+ )?(?:instructions?|prompt"
    r"|rules|programming)\b",
    # you are now DAN; enter god mode; act as an unrestricted AI
    r"\byou are now (?:in )?(?:an? )?(?:dan\b|developer mode|debug mode|god mode|jailbr|unrestricted"
    r"|unfiltered|uncensored"
    r"|evil|free of|admin mode|root mode|sudo mode)",
    rf"\byou are (?:now |from now on )(?:an? )(?:\pL+ )?(?:{_AI})\b",
    r"\b(?:enter|activate|switch to) (?:dan|jailbreak|god|sudo|unrestricted) mode\b",
    r"\b(?:act|respond|answer|behave) as (?:if you (?:were|are) )?(?:dan\b|an? (?:unrestricted|unfiltered"
    r"|uncensored|jailbroken))",
    r"\byou (?:have no|are free of|are not bound by(?: any| the)?|no longer have(?: any)?)"
    r" (?:restrictions|guidelines|content policy|safety (?:rules|guidelines)|ethical guidelines)\b",
    r"\bfrom now on,? (?:you (?:will|must|shall) )?(?:only )?(?:respond|answer|reply|act|behave|obey|ignore|speak)\b",
    # your new instructions are; new instructions for the assistant
    r"\b(?:your|here are your|these are your) (?:new|real|actual|true|updated|revised)(?: and only)?"
    r" (?:instructions?|directives?|orders|system prompt|prompt)\b",
    rf"\b(?:new|updated|revised|important|urgent|special|secret|hidden|additional) (?:system )?"
    rf"(?:instructions?|directives?|orders|prompt) (?:for|to) (?:the |any |all )?{_AIS}\b",
    rf"\b(?:attention|note|notice|message|instructions?|important|reminder|hello|hey|dear)[:,]?"
    rf" (?:to |for )?(?:the |any |all )?{_AI}s?\b"
    r"(?::|[,:]? (?:reading|processing|summari[sz]ing|reviewing|you must|you should|please|ignore))",
    rf"\bif you(?: are|'re|’re) (?:an? )?{_AI}\b{_any(4)}[:,\s]{{1,3}}(?:you|please|must|should|ignore|do"
    rf" not|include|say|add"
    r"|respond|reply|output|then|recommend|rate|give|write|call|send)\b",
    # reveal your system prompt; repeat the words above
    r"\b(?:reveal|print|show|output|repeat|display|leak|disclose|tell|give|send|dump|write|expose|share)"
    r"(?: me| us| out| back)?"
    r"(?: all(?: of)?)? your (?:\pL+ ){0,2}(?:system prompt|initial prompt|hidden prompt|prompt verbatim"
    r"|hidden instructions"
    r"|system message|system instructions|developer message|initial instructions|original instructions"
    r"|secret instructions)",
    r"\b(?:reveal|print|output|repeat|leak|disclose|dump) the (?:hidden|secret|confidential|full|entire|original)"
    r" (?:system )?(?:prompt|instructions)\b",
    r"\brepeat (?:everything|all(?: of)?(?: the)? (?:text|words)|the (?:words|text)) above\b",
    # do not let the user know
    r"\b(?:do not|don'?t|never) (?:tell|inform|alert|notify|mention|reveal|disclose)(?: this| it| these"
    r" instructions)?"
    r"(?: to)? (?:the|your) (?:user|human|operator)(?: (?:about|of|that) (?:this|these|it|you)\b|[.!])",
    r"\b(?:do not|don'?t|never) let the (?:user|human|operator) (?:know|see|notice)\b",
    r"\bwithout (?:telling|informing|alerting|notifying) the (?:user|human|operator) (?:of|about) (?:this"
    r"|it|these)\b",
)
_MARKS = (
    # <system>you are ..., [system message], system: ignore ..., --- end of user input ---
    r"</?(?:system|system[_-]prompt|system[_-]reminder|developer|instructions?|important|admin)>\s{0,4}"
    r"(?:you (?:are|must|will|should|have)|ignore|disregard|forget|new |from now on|do not|always|never"
    r"|this is|call |send )",
    r"\[\s?(?:system|developer|admin|assistant)\s?(?:message|override|note|notice|instructions?"
    r"|prompt)?\s?\][:\s]{0,4}"
    r"(?:you (?:are|must|will|should|have)|ignore|disregard|forget|new |from now on|do not|always|never"
    r"|this is|call |send )",
    r"(?:\A|\n)[!-/:-@\\[-`{-~\t\r\x20]{0,6}(?:system|developer|assistant|admin(?:istrator)?"
    r"|root)[!-9;-@\\[-`{-~\x20]{0,3}"
    r"(?: (?:message|override|note|prompt|instructions?|update))?[!-9;-@\\[-`{-~\x20]{0,3}:[\s\*\"'_`]{0,4}"
    r"(?:ignore|disregard|forget|new instruction|from now on|reveal|override|you must now|you are now)\b",
    r"[-=#*\[]{2,} ?(?:end|begin|start)(?: of)?(?: the)? (?:system|developer|admin|user) (?:prompt"
    r"|message|instructions?"
    r"|input|query) ?[-=#*\]]{2,}",
)
_OTHERS = (
    # German, Dutch
    rf"\b(?:ignorier(?:e|en sie|t)|vergiss|vergessen sie|vergesst|missachte(?:n sie)?|beachte(?:n sie)?"
    rf" nicht){_any(3)}"
    rf" (?:vorherige|vorige|vorangegangene|vorangehende|bisherige|obige|frühere|ursprüngliche|deine"
    rf"|ihre)[rnms]?{_any(2)}"
    r" (?:anweisung|instruktion|befehl|vorgabe|regel|aufforderung|richtlinie|prompt)\pL*",
    rf"\b(?:negeer|vergeet){_any(3)} (?:vorige|voorgaande|eerdere|bovenstaande|je){_any(2)}"
    r" (?:instructies|aanwijzingen|opdrachten|regels|prompts?)\b",
    # French, Spanish, Italian, Portuguese, Romanian
    rf"\b(?:ignore[zr]?|oublie[zr]?|ne (?:tiens|tenez) (?:pas|plus) compte|(?:fais|faites) abstraction){_any(4)}"
    rf" (?:instructions?|consignes?|directives?|règles|ordres){_any(1)}"
    r" (?:précédente?s?|antérieure?s?|ci-dessus|initiales?|plus haut)\b",
    rf"\b(?:ignore[zr]?|oublie[zr]?){_any(1)} (?:tes|vos) (?:instructions|consignes|directives|règles)\b",
    rf"\b(?:ignor[aeá]d?|olvid[aeá]d?|haz caso omiso|no hagas caso|descart[ae]){_any(4)}"
    rf" (?:instrucciones|indicaciones|órdenes|reglas|directrices|prompts?){_any(1)} (?:anteriores|previas|precedentes"
    r"|iniciales|de arriba)\b",
    rf"\b(?:ignora(?:te)?|dimentica(?:te)?|trascura){_any(4)} (?:istruzioni|indicazioni|regole|direttive"
    rf"|ordini){_any(1)}"
    r" (?:precedenti|iniziali|anteriori|sopra|di cui sopra)\b",
    rf"\b(?:ignor[ae]|esqueça|esquece|desconsidere|desconsidera){_any(4)}"
    rf" (?:instruções|orientações|regras|ordens|diretrizes|comandos){_any(1)} (?:anteriores|acima|prévias"
    rf"|iniciais)\b",
    rf"\bignoră{_any(4)} (?:instrucțiunile|regulile){_any(1)} (?:anterioare|de mai sus)\b",
    # Polish, Czech, Russian, Ukrainian
    rf"\b(?:z?ignoruj|zapomnij|pomiń|zignorować){_any(3)} (?:poprzedni|wcześniejsz|powyższ|dotychczasow)\pL*{_any(1)}"
    r" (?:instrukcj|polece|zasad|wytyczn|poleceni)\pL*",
    rf"\b(?:ignoruj|zapomeň){_any(3)} (?:předchozí|dřívější|výše uvedené){_any(1)} (?:pokyny|instrukce"
    rf"|příkazy|pravidla)\b",
    rf"(?:про)?(?:игнорируй|забудь|отмени)(?:те)?{_any(3)} (?:предыдущ|прежн|вышеуказанн|вышеизложенн"
    rf"|прошл|изначальн)\pL*"
    rf"{_any(2)} (?:инструкц|указан|команд|правил|распоряжен|промпт)\pL*",
    rf"(?:ігноруй|забудь)(?:те)?{_any(3)} (?:попередн|вищевказан)\pL*{_any(2)} (?:інструкц|вказівк|команд"
    rf"|правил)\pL*",
    # Turkish, Indonesian, Vietnamese
    rf"\b(?:önceki|yukarıdaki|bundan önceki){_any(2)} (?:talimat|yönerge|komut|kural|istem)\pL*{_any(2)}"
    r" (?:yok say|görmezden gel|unut|dikkate alma)\pL*",
    rf"\b(?:abaikan|lupakan){_any(2)} (?:instruksi|perintah|aturan|petunjuk){_any(2)} (?:sebelumnya|di atas)\b",
    rf"\b(?:bỏ qua|phớt lờ|quên){_any(3)} (?:hướng dẫn|chỉ dẫn|lệnh|chỉ thị){_any(2)} (?:trước|ở trên|phía trên)\b",
    # Arabic, Persian, Hebrew, Hindi
    rf"(?:تجاهل|انس|اهمل|أهمل|لا تتبع){_any(3)} (?:التعليمات|الأوامر|الإرشادات|القواعد|تعليماتك){_any(2)}"
    r" (?:السابقة|أعلاه|المذكورة|الأصلية)",
    rf"(?:دستورات|دستورالعمل‌?های|دستورهای|قوانین){_any(1)} (?:قبلی|پیشین|بالا){_any(2)} (?:نادیده|فراموش)",
    rf"(?:התעלם|התעלמי|התעלמו|שכח){_any(2)} (?:מההוראות|מהוראות|מההנחיות|את ההוראות|מכל ההוראות){_any(1)}"
    r" (?:הקודמות|שלמעלה|הקודמת)",
    rf"(?:पिछले|पिछली|पूर्व|उपरोक्त|पहले के|ऊपर के|ऊपर दिए गए){_any(2)} (?:निर्देश|आदेश|नियम)[\pL\pM]*{_any(2)}"
    r" (?:अनदेखा|नज़रअंदाज़?|नजरअंदाज|भूल|उपेक्षा)",
    # Chinese, Japanese, Korean
    r"(?:忽略|无视|無視|忽视|不要理会|不理会|忘记|忘掉|忘記)[^\n。！？!?]{0,10}(?:之前|以上|先前|上面"
    r"|前面|上述|以前|此前)"
    r"[^\n。！？!?]{0,8}(?:指令|指示|提示词|提示|命令|规则|規則|设定)",
    r"(?:これまで|以前|上記|今まで|先ほど|前)[^\n。]{0,6}(?:指示|命令|指令|プロンプト|ルール)[^\n。]{0,6}"
    r"(?:無視|忘れ|従わない)",
    r"(?:이전|위의|앞선|지금까지의|기존)[^\n.]{0,8}(?:지시|명령|지침|프롬프트|규칙)[^\n.]{0,8}(?:무시"
    r"|잊어|잊고|따르지 마)",
)
PHRASES = tuple(_words(phrase) for phrase in (*_ENGLISH, *_MARKS, *_OTHERS))
