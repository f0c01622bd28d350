"""Ways to give an answer and ways to give none, with blanks for options and their letters.

`{a}` and `{b}` are the texts of two options, `{LA}` and `{LB}` their letters; `{L}` is the letter of `{a}`. Every line is one way; a
line break inside it is written as a backslash and an n.
"""

ANSWERS = r"""
{L}
({L})
{L}.
{L})
{a}
{a}.
"{a}"
{L}. {a}
({L}) {a}
{L}: {a}
{L}) {a}.
{a} ({L})
**{a}**
**{L}. {a}**
Option {L}
Option {L}: {a}
The answer is {a}.
The answer is {L}.
The answer is ({L}).
The answer is ({L}) {a}.
The answer is {L}. {a}
The answer is {L}: {a}.
The answer is option {L}.
The answer is option {L}, {a}.
The answer is "{a}".
The answer is: {a}
The answer is **{a}**.
The correct answer is {a}.
The correct answer is {L}) {a}.
The correct option is {L}.
The most likely answer is {a}.
The best answer is ({L}) {a}.
The right choice is {L}.
My answer is {a}.
My answer: {L}
My final answer is {L}.
Final answer: {a}
Final Answer: {L}
**Final Answer:** {L}. {a}
### Final Answer\n{a}
## Answer\n\n**{L}. {a}**
Answer: {a}
Answer: {L}
Answer: {L}. {a}
**Answer: {L}**
**Answer:** {a}
answer: {a}.
Correct answer: {L}
Correct answer: {a}
So the answer is {a}.
So, the correct answer is {L}.
Therefore, the answer is {a}.
Therefore, the correct answer is ({L}) {a}.
Thus, the answer is {L}.
Hence the answer is {a}.
Therefore, option {L} is correct.
Therefore, {a} is the correct answer.
{a} is the correct answer.
{L} is correct.
Option {L} is the correct answer.
I choose {L}.
I would choose {a}.
I'd go with {L}.
I'll pick {a}.
I select option {L}.
I think the answer is {a}.
I believe the correct answer is {L}.
Based on the audio, the answer is {a}.
Based on the audio, I would say {a}.
After listening to the clip, the correct answer is {L}. {a}.
The answer is {a} because it fits the clip best.
The answer is {L}, because it fits the clip best.
The answer is {a}, as the clip suggests.
{L}\n\nThe clip suggests this.
{a}\n\nThe clip suggests this.
{L}. {a}\n\nExplanation: the clip suggests this.
{a}\nExplanation: the clip suggests this.
The clip is short. It has one event.\n\nAnswer: {L}
The clip is short. It has one event. Therefore, the answer is {a}.
Let's think step by step. First, the clip is short. Second, it has one event. So the answer is {L}.
Step 1: listen.\nStep 2: compare.\nStep 3: decide.\nFinal answer: {a}
<answer>{a}</answer>
<answer>{L}</answer>
<answer>{L}. {a}</answer>
<answer>({L}) {a}</answer>
<answer> {a} </answer>.
<Answer>{a}</Answer>
<answer>The answer is {a}.</answer>
The clip is short. <answer>{a}</answer>
<think>{a}? The clip is short.</think><answer>{a}</answer>
<think>\nHmm.\n</think>\n\n{a}
<think>\nHmm.\n</think>\n\nThe answer is {L}.
Hmm, the answer may be other.</think>\n\n{L}
<reasoning>It fits.</reasoning><answer>{a}</answer>
<CONCLUSION>{L}</CONCLUSION>
<conclusion>The answer is {a}.</conclusion>
<final_answer>{a}</final_answer>
\boxed{{{L}}}
\boxed{{{a}}}
$\boxed{{\text{{{a}}}}}$
The answer is $\boxed{{{L}}}$.
Final answer: \boxed{{\text{{({L}) {a}}}}}
{{"answer": "{a}"}}
{{"answer": "{L}"}}
{{"answer": "{L}. {a}"}}
{{"reasoning": "The clip is short.", "answer": "{a}"}}
{{'answer': '{a}'}}
```json\n{{"answer": "{a}"}}\n```
{{"final_answer": "{L}", "confidence": 0.9}}
['{a}']
["{a}"]
{a}<|im_end|>
{L}</s>
{a}<|endoftext|>
答案是{a}。
答案是{L}。
答案：{L}
答案：{a}
正确答案是{L}。
正确答案是：{L}. {a}
正确答案：{L}
因此，正确答案是{L}。
所以答案是{a}。
最终答案：{L}
最终答案是{a}。
选{L}
选择{L}。
我选择{L}。
应选{L}
故选{L}。
选项{L}
正确选项是{L}。
答案为{L}
{L}、{a}
Die Antwort ist {a}.
Die Antwort ist {L}.
Die richtige Antwort ist {L}.
Die richtige Antwort lautet: {L}) {a}
Die korrekte Antwort ist {a}.
Antwort: {a}
Antwort: {L}
Richtige Antwort: {L}
Ich wähle {L}.
Also ist die Antwort {L}.
Daher ist die richtige Antwort {L}.
Option {L} ist richtig.
Endgültige Antwort: {a}
La réponse est {a}.
La réponse est {L}.
La bonne réponse est {L}.
La bonne réponse est : {a}
La réponse correcte est {L}) {a}.
Réponse : {a}
Réponse: {L}
Réponse finale : {L}
Je choisis {L}.
Donc, la réponse est {a}.
L'option {L} est correcte.
La respuesta es {a}.
La respuesta es {L}.
La respuesta correcta es {L}.
La respuesta correcta es: {L}) {a}
Respuesta: {a}
Respuesta: {L}
Respuesta final: {a}
Por lo tanto, la respuesta es {a}.
La opción correcta es {L}.
La opción {L} es correcta.
Elijo la opción {L}.
A resposta é {a}.
A resposta correta é {L}.
Resposta: {a}
Portanto, a resposta correta é {L}.
A alternativa correta é {L}.
La risposta è {a}.
La risposta corretta è {L}.
Risposta: {a}
Quindi la risposta è {L}.
答えは{a}です。
答えは{L}です。
正解は{L}です。
正解は「{a}」です。
答え：{L}
正解：{a}
したがって、正解は{L}です。
최종 답: {L}
정답은 {a}입니다.
정답: {L}
따라서 정답은 {L}입니다.
Ответ: {a}
Правильный ответ: {L}
Het antwoord is {a}.
Antwoord: {L}
It is {a}.
This is {a}.
The sound is {a}.
I hear {a}.
It sounds like {a}.
The clip contains {a}.
""".strip().split("\n")
"""Each names `{a}` beyond doubt."""

NO_ANSWERS = r"""
{a} or {b}
{a} and {b}
{a}, {b}
{a} / {b}
{a}; {b}
{a}\n{b}
{a}. {b}.
{a} & {b}
both {a} and {b}
either {a} or {b}
{LA} or {LB}
{LA} and {LB}
{LA}, {LB}
({LA}) or ({LB})
({LA}) ({LB})
{LA} {LB}
{LA}/{LB}
{LA}\n{LB}
{LA}. {b}
({LA}) {b}
{LB}: {a}
{b} ({LA})
option {LA}: {b}
not {a}
It is not {a}.
The answer is not {a}.
The answer isn't {a}.
The answer is {a} or {b}.
The answer is {a} and {b}.
The answer is {LA} or {LB}.
The answer is either {a} or {b}.
The answer is {LA}, {LB}.
The answer is {a}/{b}
The correct answers are {a} and {b}.
Answer: {a} or {b}
Answer: {a}, {b}
Answer: {LA}/{LB}
Answer: {LA} & {LB}
Answer: {LA} {LB}
Answer: {LA}. {b}
Answer: {LA}) {b}
<answer>{a} or {b}</answer>
<answer>{a}, {b}</answer>
<answer>{LA}. {b}</answer>
<answer>{LA}, {LB}</answer>
<answer>{LA}{LB}</answer>
<answer>not {a}</answer>
<answer>{a}</answer><answer>{b}</answer>
<answer>{a}</answer> or <answer>{b}</answer>
<answer>{a}</answer>, or maybe <answer>{b}</answer>
It is not <answer>{a}</answer>
It isn't <answer>{a}</answer>.
I do not think it is <answer>{a}</answer>.
The answer is not <answer>{a}</answer>.
<answer>{a}</answer> is not the answer.
<answer>{a}</answer> is wrong.
<answer>{a}</answer> is incorrect
<answer>{a}</answer>?
Is it <answer>{a}</answer>?
If it is loud, <answer>{a}</answer>, otherwise <answer>{b}</answer>.
<think>The answer is {a}.
<think><answer>{a}</answer>
<think>{a}
<thinking>The answer is <answer>{a}</answer>
{a}?
Is it {a}?
Is the answer {a}?
Could the answer be {a}?
The answer might be {a}.
The answer could be {a} or {b}.
The answer may be {a}.
Maybe {a}, maybe {b}.
Perhaps {a} or {b}
I am torn between {a} and {b}.
It's between {LA} and {LB}.
The answer is {a}. Wait, no, it is {b}.
The answer is {a}. No, {b}.
The answer is {LA}. Actually, {LB}.
The answer is {LA}... no, {LB}.
The answer is {a}. Hmm, or {b}.
The answer is {a}. Alternatively, {b}.
The answer is {a}, or {b}.
The answer is {a}, maybe {b}.
The answer is {a} (or {b}).
The answer is {a}. The answer is {b}.
Answer: {a}\nAnswer: {b}
The answer is {LA}. The correct answer is {LB}.
\\boxed{{{a}}} \\boxed{{{b}}}
\\boxed{{{a}, {b}}}
\\boxed{{{LA}}} or \\boxed{{{LB}}}
{{"answer": "{a}"}} {{"answer": "{b}"}}
{{"answer": ["{a}", "{b}"]}}
{{"answer": "{LA} or {LB}"}}
{{"answer": "not {a}"}}
{a} is wrong.
{a} is incorrect.
{LA} is wrong.
{LA} is not correct.
{a} is not the answer.
Option {LA} is incorrect.
Options {LA} and {LB} are correct.
{a} and {b} are both correct.
Either {LA} or {LB} is correct.
I don't think {a} is correct.
If the pitch rises, {a} is the correct answer.
It is unclear whether {a} is correct.
I don't think the answer is {a}.
I doubt that the answer is {a}.
If it is loud, the answer is {a}.
Unless I am mistaken, I cannot say the answer is {a}.
The wrong answer is {a}.
One possible answer is {a}.
The question asks whether the answer is {a}.
Option {LA} is {a}.
The first option is {a}.
Option {LA}: {a}. Option {LB}: {b}.
{LA}. {a}\n{LB}. {b}
A. {a} B. {b}
The options are {a} and {b}.
The options are: {a}, {b}.
Choose from {a}, {b}.
the {a} {b}
{a} {b}
{a} with {b}
{a} then {b}
{a} not {b} not sure
{a}ish
super{a}
answer
The answer is
The answer is:
<answer>
<answer></answer>
{LA}{LB}
{LA}+{LB}
Neither {a} nor {b}
Anything but {a}
everything except {a}
rule out {a}
I ruled out {a}.
We can eliminate {a}.
Eliminate {LA}.
It sounds like {a} or {b}.
It sounds like {a} and {b}.
I hear {a} and {b}.
It could be {a}.
It might be {a}.
I am not sure if it is {a}.
This doesn't sound like {a}.
I would not choose {a}.
I would not choose {LA}.
I almost chose {a}.
My first guess was {a}, my second {b}.
Some would say {a}.
Most people would choose {a}, but it's wrong.
不是{a}
答案不是{a}
答案是{a}或{b}
答案是{LA}或{LB}
不选{LA}
Die Antwort ist nicht {a}.
Die Antwort ist {a} oder {b}.
La réponse n'est pas {a}.
La réponse est {a} ou {b}.
La respuesta no es {a}.
La respuesta es {a} o {b}.
A resposta não é {a}.
A resposta é {a} ou {b}.
La risposta non è {a}.
La risposta è {a} o {b}.
正解は{a}ではありません。
答えは{a}か{b}です。
정답은 {a}이 아닙니다.
Ответ не {a}.
Ответ: {a} или {b}
The answer is {a}. But {b} is also correct.
The answer is {a}, but {b} is also possible.
The answer is {a}. However, {b} is more likely.
The answer is {LA}. But it could be {LB}.
The answer is {LA}, not sure though, could be {LB}.
{a}. Or {b}.
{a}, or {b}.
{a} - {b}
{a} ({b})
{a}: {b}
{LA}) {a}\n{LB}) {b}
{LA}. {a} {LB}. {b}
1. {a} 2. {b}
1. {a}\n2. {b}
- {a}\n- {b}
["{a}", "{b}"]
{{'{a}': 0.5, '{b}': 0.5}}
The answer is {a} 50% and {b} 50%.
{a} > {b}
{a} = {b}
{a} vs {b}
from {a} to {b}
<answer>{a} <answer>{b}</answer>
<answer>{a}</answer> no, <answer>{b}</answer>
<answer>{a}</answer>. Wait, the answer is {b}.
<answer>{a}</answer>\nThe correct answer is {b}.
</think><think>{a}
""".strip().split("\n")
"""None of them is an answer."""
