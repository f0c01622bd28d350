"""The words by which an answer is declared, denied, doubted, taken back or withheld, in the languages that models
answer in.

English, Chinese, German, French, Spanish, Portuguese, Italian, Japanese, Korean, Russian and Dutch. All expressions
are searched in text that is folded (`audiomcq.answer_matching.fold`), so quotes and dashes are plain and brackets
narrow. None of them can backtrack over more than a few words, so each costs time that is linear in the text.
"""

import re

_FLAGS = re.IGNORECASE


def _whole(*words: str) -> str:
    """Match any of these as whole words.

    Chinese, Japanese and Korean have no spaces: their words are matched without this.
    """
    return rf"(?<!\w)(?:{'|'.join(words)})(?!\w)"


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), _FLAGS)


_ADJECTIVE = r"(?:final|correct|right|best|true|proper|appropriate|suitable|accurate|likely|probable|plausible|fitting|chosen|selected|my|our)"
_NOUNS = (
    _whole(
        r"answer(?!\s+(?:choices|options))",
        r"final(?=\s*:)",
        rf"{_ADJECTIVE}\s+(?:(?:final|answer)\s+)?(?:fit|option|choice|response|selection|pick|guess|candidate|match|prediction|conclusion|letter|one|verdict)",
        r"(?:choice|option|response|selection|prediction|conclusion|solution|verdict|result|output)(?=\s*:)",
        r"(?:antwort|lösung)",
        r"(?:richtig|korrekt)(?=\s+(?:ist|wäre))",
        r"(?:richtige|korrekte|beste|wahrscheinlichste|passendste|meine)\s+(?:option|wahl|auswahl|möglichkeit)",
        r"réponse",
        r"(?:bonne|bon|meilleure?|mon)\s+(?:option|choix|solution)",
        r"(?:option|choix|solution)\s+(?:correcte?|juste|probable|appropriée?)",
        r"(?:respuesta|la correcta)",
        r"(?:opción|alternativa|elección)\s+(?:correcta|adecuada|más probable)",
        r"mi\s+elección",
        r"resposta",
        r"(?:opção|alternativa|escolha)\s+(?:correta|certa|adequada|mais provável)",
        r"minha\s+escolha",
        r"risposta",
        r"(?:opzione|alternativa|scelta)\s+(?:corretta|giusta|migliore|più probabile)",
        r"mia\s+scelta",
        r"(?:antwoord|juiste optie|mijn keuze)",
        r"(?:ответ|(?:правильный|верный) вариант)",
    ),
    r"答案",
    r"(?:正确|最佳|最合适|最终|我)的?(?:选项|选择|回答)",
    r"(?:回答|结论)(?=[:是为])",
    r"答え|正解|解答|(?:最終)?回答(?=[:は])|正しい選択肢|正しく(?=は)",
    r"(?<![가-힣])(?:최종\s*)?(?:정답|해답|답안|답변|답)",
)
DECLARES = _any(*_NOUNS)
"""The noun of a declaration: `LINK` and the answer follow it."""

FINAL = _any(_whole("final", "endgültige", "finale", "définitive", "final", "окончательный"), r"最终|最終|최종")
"""What makes a declaration the last word."""

LINK = _any(
    r"\s*[:=→]",
    r"\s+-+>?\s",
    r"\s*[–—]",
    _whole(
        r"is|was|are|would be|should be|must be|has to be|will be|seems to be|appears to be",
        r"ist|lautet|wäre|est|serait|es|sería|é|seria|è|sarebbe|luidt|это|является|будет",
    ),
    r"(?:应该?|应当|就|则|即)?(?:是|为|选择?(?!项))",
    r"は|(?<=[답안변])\s*[은는]",
)
HEADING = re.compile(r"[^\S\n]*\n")
"""A noun that stands alone on its line."""

CHOOSES = _any(
    _whole(
        r"(?:i|we)(?:'d|'ll| would| will| shall| must| should| have to| therefore| thus| hence){0,3}\s+"
        r"(?:choose|select|pick|chose|selected|go (?:with|for)|opt for|answer|say|settle on|vote for|lean (?:to|towards?))(?: that)?",
        r"not (?!only|just)(?:\w+,? ){1,4}?but(?: rather)?(?! not)",
        r"(?:i'm|i am|we are) (?:going with|choosing|selecting|picking)",
        r"(?:ist|lautet|wäre) (?:die|meine) (?:\w+ )?(?:antwort|lösung|option|wahl)|is het (?:\w+ )?antwoord",
        r"ich (?:wähle|nehme|tippe auf|entscheide mich für|würde sagen)",
        r"je (?:choisis|sélectionne|réponds|dirais|prends|opte pour|vais choisir)",
        r"j'opte pour",
        r"(?:elijo|escojo|selecciono|elegiría|opto por|diría|me quedo con)",
        r"(?:escolho|seleciono|escolheria|opto por|diria|fico com)",
        r"(?:scelgo|seleziono|sceglierei|opto per|direi)",
        r"ik kies(?: voor)?",
        r"я (?:выбираю|выберу)",
    ),
    r"选(?:择|取|的是)?(?![项题择取])[:]?|而是",
    _whole(r"nicht (?:\w+,? ){1,3}?sondern|no (?:es )?(?:\w+,? ){1,3}?sino|pas (?:\w+,? ){1,3}?mais"),
)
"""The verb of a declaration: the answer follows directly."""

CORRECT = _any(
    _whole(
        r"(?:is|would be|must be|should be|seems|seems to be|appears to be)\s+(?:(?:clearly|definitely|therefore|thus|indeed|obviously)\s+){0,2}"
        r"(?:the\s+|my\s+)?(?:(?:most|best|only|single|final)\s+){0,2}"
        r"(?:(?:correct|right|accurate|appropriate|suitable|plausible|fitting|probable|likely(?! to)|proper)(?:\s+(?:answer|option|choice|one|match|response|fit))?"
        r"|answer|choice|match|fit)",
        r"(?:fits best|matches best|best fits|best matches|best describes)",
        r"ist\s+(?:(?:also|somit|daher|damit)\s+)?(?:die\s+)?(?:richtige?|korrekte?|beste|zutreffende?)(?:\s+(?:antwort|option|wahl|lösung))?",
        r"est\s+(?:donc\s+)?(?:la\s+|le\s+)?(?:bonne|bon|correcte?|meilleure?|juste)(?:\s+(?:réponse|choix|option))?",
        r"es\s+(?:la\s+)?(?:(?:respuesta|opción)\s+)?(?:correct[oa]|adecuad[oa])",
        r"é\s+(?:a\s+)?(?:(?:resposta|opção|alternativa)\s+)?(?:corret[oa]|cert[oa]|adequad[oa])",
        r"è\s+(?:la\s+)?(?:(?:risposta|opzione|scelta)\s+)?(?:corrett[oa]|giust[oa])",
        r"is (?:het )?juiste?(?: antwoord)?",
        r"(?:это|является)?\s*правильн(?:ый|ая|ое)(?:\s+ответ)?",
    ),
    r"(?:是|为)?(?:正确|最佳|最合适)的?(?:答案|选项|选择)?",
    r"が(?:正解|正しい|答え|適切|最も適切)",
    r"を選(?:び|択|ぶ)",
    r"[이가]\s*(?:정답|맞|적절)",
    r"[을를]\s*(?:선택|고르|고릅)",
)
"""What follows an answer that is called the right one."""

CONCLUDES = _any(
    _whole(
        r"therefore|thus|hence|so|consequently|in conclusion|in summary|to conclude|overall|as a result|conclusion",
        r"daher|also|somit|folglich|deshalb|insgesamt",
        r"donc|ainsi|par conséquent|en conclusion",
        r"por lo tanto|por tanto|así que|entonces|en conclusión",
        r"portanto|logo|assim|então|por isso",
        r"quindi|perciò|pertanto|dunque|in conclusione",
        r"dus|daarom|поэтому|следовательно|таким образом|значит",
    ),
    r"因此|所以|综上所述|综上|总之|由此可见|したがって|よって|つまり|そのため|따라서|그러므로|그래서",
)
"""What opens a conclusion."""

STATES = _any(
    _whole(
        r"is|are|was|were|sounds? like|sounds?|(?:that|it)'d be|seems?(?: to be)?|appears?(?: to be)?|must be|should be|has to be|would be",
        r"hear|heard|count(?:ed)?|guess|detect(?:ed)?|contains?|features?|corresponds? to|points? to|belongs? to|indicates?|suggests?|matches|leaves|called|named",
        r"ist|sind|klingt (?:nach|wie)|höre|hört man|handelt es sich um",
        r"est|sont|c'est|s'agit (?:d'|de)|entends|entend|ressemble à",
        r"es|son|será|era|fue|suena (?:como|a)|trata de|escucha|oye|oigo|escucho",
        r"é|são|foi|soa como|trata-se de|ouço|ouve-se",
        r"è|sono|sembra|sento|si sente|tratta di",
        r"zijn|hoor|klinkt als|это|слышен|слышна|слышно",
    ),
    r"(?<=\w)'s(?!\w)",
    r"听起来像|听到的?是|听到了?|属于|是|为|は|が|[은는]",
)
"""The verb of a plain statement: "it is a siren"."""

LEAD = re.compile(
    r"(?:\s|[:=>→,]|-(?!\d))*(?:"
    + "|".join(
        (
            _whole(
                r"(?:most |very )?(?:likely|probably)|clearly|definitely|certainly|indeed|therefore|thus|hence|so|simply|obviously|as follows",
                r"the following|that|it is|it's|this is|option|choice|the (?:sound|sounds) of|(?:that|it)'d be|consequently|in conclusion|i (?:think|believe|would say)",
                r"wahrscheinlich|vermutlich|eindeutig|klar|also|daher|somit|folglich|dass|es ist",
                r"donc|probablement|clairement|sans doute|sûrement|que|c'est|ainsi",
                r"probablemente|claramente|entonces|por lo tanto|por tanto|que|es",
                r"provavelmente|claramente|portanto|que|é|probabilmente|chiaramente|quindi|che|è|waarschijnlijk|dus",
                r"вероятно|скорее всего|значит|поэтому|это",
            ),
            r"应该是|应该|应为|应|最可能|很可能|可能|因此|所以|就是|就|是|为|选项?|おそらく|したがって|よって|따라서|아마도?",
        )
    )
    + r")(?=\W|[^\x00-\x7f]|$)[\s:,]*",
    _FLAGS,
)
"""What may stand between a declaration and its answer without changing it."""

LETTER_NOUN = (
    r"(?:option|choice|answer|letter|alternative|candidate|opción|opcion|opção|opcao|opzione|réponse|reponse|respuesta|resposta|risposta"
    r"|antwort|buchstaben?|lettre|letra|lettera|möglichkeit|choix|alternativa|optie|antwoord|вариант|ответ|буква"
    r"|选项|选择|答案|第|選択肢|回答|보기|선택지)\s*[:.]?\s*"
)
"""What makes a letter after it a letter and nothing else."""
LETTER_KEY = (
    rf"(?:(?:the|la|die|le|el|il|a|o|de|l')?\s*)?(?:(?:correct|right|final)\s+)?{LETTER_NOUN}(?:{LETTER_NOUN})?"
)
LETTER_END = r"(?:\s*(?:选项|项|番|번|option|choice))?"

POLITE_END = re.compile(r"(?:です|でした|である|だと思います|と思います|だ|입니다|이다|이에요|예요|인 것 같습니다)$")
"""What Japanese and Korean sentences put after the answer."""

ARTICLE = re.compile(
    r"(?:(?:a|an|the|le|la|les|un|une|des|der|die|das|den|dem|ein|eine|einen|einer|el|los|las|una|os|as|um|uma|o|il|lo|gli|het|een)\s+|l'\s*)(?=\S)",
    _FLAGS,
)

NEGATION = _any(
    _whole(
        r"not|never|no|nor|neither|cannot|nothing|none|without|hardly|\w+n't|isnt|rather than|instead of|except|excluding|unlike|anything but",
        r"wrong|incorrect|false|unlikely|everything but|all but|lack(?:s|ing|ed)?|absence|opposite|far from|no longer|used to|too \w+ (?:for|to be)|rule[sd]? out|ruling out|excluded?|eliminat\w+|reject\w*|doubt\w*",
        r"nicht|kein|keine|keinen|keiner|nie|weder|falsch|statt|ausgeschlossen",
        r"ne|pas|jamais|aucune?|ni|sans|faux|fausse|incorrecte?|plutôt que",
        r"nunca|ningún|ninguna|tampoco|incorrect[oa]|fals[oa]|en vez de|en lugar de",
        r"não|nem|nenhuma?|errad[oa]|incorret[oa]|em vez de",
        r"non|mai|né|nessun|nessuna|sbagliat[oa]|errat[oa]|invece di",
        r"niet|geen|не|нет|ни|неверн\w+|вместо",
    ),
    r"(?<!\w)n'",
    r"不|没|並非|并非|而非|未|无法|错误|ない|ません|なく|아니|않|없|못",
)
CONDITION = _any(
    _whole(
        r"if(?! (?:i|we) (?:had|have|must|were|am forced))|whether|unless|otherwise|suppose|supposing|assuming|until|wenn|falls|ob|si|caso|qualora|als|если|ли"
    ),
    r"如果|假如|若|是否|假设|除非|もし|場合|かどうか|만약|라면",
)
"""What makes a sentence a condition or a question, so that it declares nothing."""
DOUBT = _any(
    _whole(
        r"might|could|may|maybe|perhaps|possibly|either|not sure|unsure|vielleicht|könnte|entweder|peut-être|pourrait",
        r"quizás?|tal vez|podría|talvez|poderia|forse|potrebbe|misschien|возможно",
    ),
    r"也许|或许|かもしれ|일지도",
)
"""What makes a declaration a guess."""

_POSSIBLE = r"(?:possible|correct|right|plausible|likely|fit)"
OR_ELSE = re.compile(
    r"[\W_]*(?:"
    + _whole(r"or|but|however|actually|although|oder|aber|ou|mais|o|pero|mas|oppure|ma|of|maar|или|но")
    + r"|或者?|但|または|또는)",
    _FLAGS,
)
"""What, at the beginning of a sentence that names another option, makes two answers of one."""
OTHERWISE = _any(
    _whole(
        r"either|maybe|perhaps|possibly|alternatively|(?:could|might|may|can) (?:also|be|well be|equally)|equally|as well|too",
        rf"also (?:be )?{_POSSIBLE}|vielleicht|könnte|auch (?:möglich|richtig)|peut-être|pourrait|aussi (?:possible|correct)",
        r"quizás?|tal vez|podría|también (?:es )?(?:posible|correct[ao])|talvez|pode(?:ria)? ser|também (?:é )?(?:possível|corret[ao])",
        r"forse|potrebbe|anche (?:possibile|corrett[ao])|misschien|возможно|тоже",
    ),
    r"也可能|也许|还是|かもしれ|も考え|일지도|도 가능",
)
"""The same anywhere in a clause that names another option."""
CONTRAST = _any(
    _whole(
        r"(?:and |but )?not|rather than|instead of|as opposed to|(?:und )?nicht|statt|et non|et pas|pas|y no|e não|e non|niet|а не|не"
    ),
    r"而不是|而非|不是|ではなく",
)
"""What opens the options that an answer is set against."""

TAKES_BACK = _any(
    r"(?:^|[.!?\n,;…—–-])\s*"
    + _whole(
        r"wait|hold on|hmm+|oops|sorry|correction|scratch that|strike that|no(?=,)|no wait|actually,? no|never ?mind|my mistake|on second thoughts?",
        r"let me (?:re-?think|reconsider|correct|re-?check|think again)|moment mal|korrektur|nein|doch nicht|attendez|non|pardon|rectification",
        r"espera|corrijo|perdón|mejor dicho|espere|corrigindo|ou melhor|aspetta|anzi|mi correggo|wacht|нет|стоп|подожди",
    ),
    _whole(
        r"changed? my (?:mind|answer)|i take (?:it|that) back|i was wrong|i made a mistake|i meant|i mean|second guess",
        r"ich meine|je me trompe|me equivoqué|me enganei|mi sbaglio|ошиб(?:ся|лась)",
    ),
    r"不对|不對|等等|等一下|更正|纠正|我错了|重新考虑|いや、|訂正|待って|間違え|아니,|정정|잠깐",
)
"""What takes an answer back."""

UNDERMINES = re.compile(
    r"\s*(?:" + _whole(
        r"(?:is|was|are|seems|sounds|would be|must be|can|could|does|do|has been)(?:n't| not|\s(?:[^\s.!?]+\s){0,3}?(?:not|wrong|incorrect|false|unlikely|impossible|ruled out|excluded|never))",
        r"cannot|can't",
        r"ist\s(?:\S+\s){0,2}?(?:nicht|falsch|ausgeschlossen)",
        r"n'est|est\s(?:\S+\s){0,2}?(?:faux|fausse|incorrecte?)",
        r"no es|es\s(?:\S+\s){0,2}?(?:incorrect[oa]|fals[oa])|não é|non è|è\s(?:\S+\s){0,2}?(?:sbagliat[oa]|errat[oa])|is niet",
    ) + r"|不是|不对|是错|不正确|错误|ではなく|でも|ではない|ではありません|じゃない|[이가은는]?\s*아니)",
    _FLAGS,
)  # fmt: skip
"""What, right after an answer, denies it."""

BECAUSE = _any(
    _whole(
        r"because|since|as (?=it|the|there|this|that|these|he|she|they|we|i|no)|given|due to|based on|considering|which|where|for the|in (?:the|this) (?:audio|clip|recording|sound)",
        r"weil|da(?= (?:der|die|das|es|man|ich|ein|eine|hier|sie|er|im))|denn|aufgrund|car(?= (?:on|il|elle|le|la|les|un|une|cela|ce|je|nous)| [lcj]')|parce|puisque|porque|ya que|debido|pois|já que|perché|poiché|omdat|потому|так как|поскольку",
    ),
    r"因为|由于|理由|なぜなら|から|ので|왜냐하면",
)
"""What opens a reason."""

OPENS = _any(
    _whole(
        r"the|it|its|this|that|these|those|there|here|he|she|they|i|you|we|his|her|their|a|an|in|based|given|because|since|as|for|while|although"
        r"|explanation|reason|reasoning|rationale|justification|note|all|both|other|none|no|however|also|with|from|at|when|after|by",
        r"der|die|das|es|dies|diese|dieser|man|ich|er|sie|weil|denn|da|begründung|erklärung|im|ein|eine|hier",
        r"le|la|les|l|il|elle|on|ce|c|cette|je|car|explication|dans|un|une|parce",
        r"el|los|las|se|esto|este|esta|porque|explicación|en|hay|su",
        r"o|a|os|isso|este|esta|explicação|no|na|há|pois",
        r"i|gli|lo|si|questo|questa|perché|spiegazione|nel|c'è|de|het|dit|er|это|звук|потому|объяснение",
    ),
    r"[^\x00-\x7f]",
)
"""How the sentence after a bare letter may open for the letter to be a letter."""

_HEAR = (
    r"hear|tell|determine|identify|say|answer|know|listen|process|access|make out|provide|assist|help|detect|recogni[sz]e|perceive|be sure"
    r"|discern|choose|decide|analy[sz]e|confirm|give|judge|distinguish|understand|see|play|infer|select|pick|find|comply"
)
ABSTAINS = _any(
    _whole(
        rf"(?:i|we)(?:'m| am| was| are)? (?:(?:really|simply|honestly|currently|also|just) )?(?:can(?:no|')t|can not|could(?:n't| not)|do(?:n't| not)|did(?:n't| not)|(?:am |was |are )?(?:unable|not able) to|am not|not)"
        rf" (?:(?:really|clearly|actually|reliably|confidently|directly|currently|able to) )?(?:{_HEAR}|have|sure|certain)",
        rf"i'm (?:unable|not able) to (?:{_HEAR})",
        rf"(?:unable|impossible|not possible) to (?:{_HEAR}|do)|no way (?:of knowing|to (?:know|tell))",
        r"(?:is|are|was|does|do|did|has|have)(?: not|n't) (?:\w+ )?(?:mentioned|stated|specified|said|given|clear|say|mention|tell|reveal|specify|contain|include|provide)(?: enough)?",
        r"please (?:provide|upload|share|attach|send)",
        r"(?:cannot|can't|can not|could not|couldn't) (?:be )?(?:reliably |confidently )?(?:determined?|identif(?:y|ied)|known|answer(?:ed)?|heard?|tell|say|judged?|inferred|made out)",
        r"(?:hear|heard|detect(?:ed)?|perceive|contains?|there(?:'s| is| was| seems to be| appears to be)|has|have|given|received|provided) (?:just |only |absolutely |basically )?(?:nothing|silence|no(?: \w+){0,2} (?:audio|sounds?|speech|clip|recording|file|information|answer|voice|music|content|idea|way))",
        r"no (?:audible )?(?:audio|sounds?|clip|recording|file|speech)(?: \w+)? (?:was|were|is|are|has been|can be|could be|to)\b[^.]{0,40}",
        r"(?:audio|clip|recording|file|sound|track) (?:[\w']+ ){0,3}(?:is|was|seems|appears|seems to be|appears to be) (?:\w+ )?(?:silent|silence|empty|blank|missing|corrupted|inaudible|unavailable|unclear|not (?:audible|available|provided|attached|clear))",
        r"(?:audio|clip|recording|file) (?:wasn't|was not|isn't|is not|has not been) (?:\w+ )?(?:provided|attached|included|available|audible)",
        r"none of (?:the |these |those )?(?:above|them|these|those|options|choices|answers|(?:given|provided|listed|available) (?:options|choices|answers))|none (?:fits?|match(?:es)?|apply|applies)|neither of (?:them|these|those|the (?:options|choices|above))",
        r"no (?:correct|suitable|matching|valid|right|appropriate) (?:answer|option|choice)",
        r"(?:not enough|insufficient|no sufficient) (?:information|context|data|evidence|audio)",
        r"(?:i )?(?:have )?no idea|don't know|do not know|not sure|unsure|(?:is|remains) (?:unclear|uncertain|unknown)|cannot tell|can't tell|can't say",
        r"(?:i'm|i am)?(?:^| )sorry|i apologi[sz]e|as an ai",
        r"(?:ich )?(?:höre|hör) (?:nichts|keine?n?)|(?:ich )?(?:kann|konnte|weiß)(?: \w+){0,5} nichts?(?: \w+)?|nicht (?:bestimmbar|erkennbar|möglich)|keine (?:ahnung|angabe|der|audio|antwort)\b|keine (?:der )?(?:oben genannten|genannten|angegebenen)|nichts davon|ist nichts zu hören|lässt sich(?: \w+){0,6} nicht(?: \w+)?|tut mir leid",
        r"je n'entends(?: \w+)? (?:rien|pas|aucun)|je ne (?:peux|sais|parviens|suis)(?: \w+)? pas(?: \w+)?|désolée?|incapable de|impossible (?:de|à) (?:dire|déterminer|savoir|répondre|identifier)|aucune? (?:de ces|des|idée|réponse|son)|il n'y a (?:rien|aucun|pas)",
        r"no (?:puedo|se puede|se sabe|tengo forma|oigo|escucho|sé|es posible|hay|logro)(?: \w+){0,4}|ningun[oa] de|imposible (?:determinar|saber|decir)",
        r"não (?:consigo|posso|é possível|ouço|sei|há|dá)(?: \w+){0,4}|nenhuma? d[ae]s|impossível (?:determinar|saber|dizer)",
        r"non (?:posso|riesco|sento|so|è possibile|c'è|si può)(?: \w+){0,4}|nessun[oa] dell[ea]|impossibile (?:determinare|sapere|dire)",
        r"ik (?:hoor niets|kan(?: \w+){0,4} niet|weet het niet)|geen van|я (?:не (?:слышу|могу|знаю)|ничего не слышу)(?: \w+){0,3}|невозможно|ни один из",
    ),
    r"无法|不能(?:确定|判断|回答|听)|听不(?:到|清|见)|没有(?:听到|声音|音频|任何)|不(?:知道|确定|清楚)|以上都不|都不(?:是|对)|没听到|未听到|抱歉|未提供|没有提供",
    r"わかりません|分かりません|聞こえません|聞こえない|判断できません|判断できない|できません|聞き取れ(?:ません|ない)|何も聞こえ|該当なし|不明|申し訳",
    r"알 수 없|들리지 않|모르겠|판단할 수 없|들을 수 없|없습니다|죄송",
)
"""An answer that says it gives none."""
ASKS = re.compile(r"\W*(?:is|are|was|were|does|do|did|can|could|would|should|what|who|how|est-ce)\s", _FLAGS)
"""How a question opens that lacks its mark."""
ABSTAINS_ALONE = re.compile(
    r"\W*(?:nothing|none|neither|silence|unknown|unclear|uncertain|undetermined|indeterminate|inaudible|unanswerable|n/a|na|not applicable"
    r"|(?:there is |just |only )?(?:no (?:audio|sounds?|speech|answer|idea|clue)|silence)|abstain|nichts|keine?|stille|unbekannt|rien|aucune?|inconnue?"
    r"|nada|ninguna?|ninguno|desconocid[oa]|nenhuma?|desconhecid[oa]|niente|nulla|nessun[oa]|sconosciut[oa]|niets|неизвестно|ничего"
    r"|无|未知|没有|不知道|なし|不明|無音|없음|모름)\W*",
    _FLAGS,
)
"""The same in a word that says it when nothing else is said."""
LIST_ITEM = re.compile(r"\s*(?:(?P<bullet>[-•*–])|\(?(?P<number>\d{1,2})[.):]|\(?(?P<letter>[a-z])[.):])\s", _FLAGS)
"""How a line of a list begins."""

MARKS_ANSWER = re.compile(r"\*\*([^*\n]{1,200})\*\*|__([^_\n]{1,200})__")
"""Words in bold."""
META = _any(
    _whole(
        r"questions?|asks? (?:if|whether|which|what|who|about|us|you|for the answer)|asked|options?|choices?|choose|chose|chosen|almost|possible|let me"
        r"|let's|let us|listen|i (?:will|need|should|must|have to)|going to|check|consider|compare|rule|(?<!i )would|suppose",
        r"frage|optionen|question|options|choix|pregunta|opciones|pergunta|opções|domanda|opzioni|вопрос|варианты",
        r"such as|for example|e\.g|like to|(?<!rather )than|als ob|como si|similar|confus\w+|mistak\w+|resembl\w+|imitat\w+|pretend\w*|remin\w+"
        r"|expect\w*|imagin\w+|as if|wish\w*|hop(?:e|es|ed|ing)|at least|at most|up to",
    ),
    r"问题|选项|选择|質問|選択肢|질문|선택지",
)
"""What makes a sentence one about the question or about what something is like, so that an option in it is no answer.
"""
SEQUENCE = _any(
    _whole(
        r"first|firstly|initially|begins?|starts?|then|next|another|also|zuerst|dann|d'abord|puis|ensuite|primero|luego|prima|poi",
    ),
    r"首先|然后|先(?!生)|最初|次に|먼저",
)
"""What makes a sentence one of several about what is heard."""
TURN = re.compile(
    r"(?<!anything)(?<!nothing)(?<!everything)(?<!all),?\s(?:but|so|therefore|thus|hence|instead|sondern|aber|also|mais|donc|sino|pero|así que|mas"
    r"|portanto|ma|quindi|maar|dus)(?=[\s,])|但是?|所以|因此|而是|したがって|しかし|따라서|하지만",
    _FLAGS,
)
"""What a sentence turns on: what was denied or doubted before it is no longer."""
BEFORE_OPTION = re.compile(
    r"(?:^|[\"'(:;→]|(?<!\w)(?:a|an|the|is|are|was|were|be|been|being|of|in|on|at|to|as|like|from|by|with|for|its?|it's|that's|this|that|these"
    r"|her|his|their|my|some|just|made|recorded|located|mostly|likely|probably|clearly|definitely|called|named|hear|heard|says?|indicates?|suggests?|represents?|shows?"
    r"|contains?|implies|means|plays?|playing|exactly|about|around|roughly|approximately|so|i\.e|"
    r"loud|soft|strong|clear|single|small|large|big|old|young|female|male|heavy|light|faint|gentle|distant|steady"
    r"|ein|eine|einen|einer|einem|eines|der|die|das|den|dem|des|ist|sind|war|von|im|am|auf|mit|wie|nach|zu|zum|zur|höre|genau|etwa|spricht|auf"
    r"|un|une|le|la|les|de|du|des|est|sont|en|à|au|aux|avec|comme|par|soit|parle"
    r"|una|el|los|las|es|son|del|con|como|por|o|os|as|um|uma|é|são|do|da|no|na|com|il|lo|gli|è|sono|di|del|della|nel|come|será|sera"
    r"|een|het|zijn|van|op|met|это|слышен|слышна|слышно|говорит|звук)|(?<!\w)[dl]'|[是为在有到听像了的共杯个只种位名条\"「、は,])\s*$",
    _FLAGS,
)
"""What may stand right before an option that a sentence names: with other words there it may be part of another thing.
"""
AFTER_OPTION = re.compile(
    r"\s*(?:$|[.!,;:)\"'”(—–]|-\s|(?:in|on|at|about|after|before|into|of|from|to|with|for|by|as|is|are|was|were|has|have|had|that|which|who|when|while|where|because|since|can|over"
    r"|during|under|throughout|through|here|a|an|the|his|being|not|rather|instead|now|per|\w{2,}ing|(?!indeed)\w{2,}ed|sung|heard|made|sounds?|noises?|music|melody|tone|mood|emotion"
    r"|voice|accent|language|genre|style|key|instrument|speakers?|person|people|audio|clip|recording|scene|times?|songs?|piece|radio"
    r"|zu|ist|sind|im|auf|der|die|das|und zwar|gehört|spricht|klang|geräusch|stimme|gesprochen|dans|du|qui|que|est|sur|parle|entendu"
    r"|del?|se|por|hablando|suena|es|no|na|da|do|é|que|parla|che|nel|è|di|in|zijn|hoor)(?!\w)"
    r"|[。,声音的吧呢在、でだがをはとの」\"]|です|입니다|이다|[을를이가은는])",
    _FLAGS,
)
"""What may stand right after it."""
CORRECTS = _any(
    _whole(
        r"(?:i )?(?:need to |have to |must |let me )?correct(?:ing)? (?:myself|that|my answer)|correction|i misspoke|my mistake",
        r"korrigiere|korrektur|erreur de ma part|je (?:me )?corrige|réponse corrigée|me corrijo|corrección|correção|mi correggo|correzione|исправляю",
    ),
    r"更正|纠正|訂正|間違えました|정정합니다",
)
"""What announces that an answer is replaced by the one after it."""
