//! Chat templates of the common families, and FAULTS 15 to 18 and 39: templates that do what they should not.

use std::time::{Duration, Instant};

use antiphon_inference::error::{Error, ErrorKind};
use antiphon_inference::template::{ChatTemplate, Message, Role};

use crate::build::expect_error;

pub(crate) const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const SIMPLE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}<|assistant|>";

const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";

const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

const MISTRAL: &str = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}"#;

const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}";

const ZEPHYR: &str = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";

const QWEN3: &str = r#"{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;

const LLAMA31: &str = r#"{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"#;

/// Trained with: the assistant's part is marked for the loss.
const GENERATION: &str = "{% for message in messages %}{% if message.role == 'assistant' %}<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}{% else %}<|user|>{{ message.content }}<|end|>{% endif %}{% endfor %}<|assistant|>";

pub(crate) const TEMPLATES: [(&str, &str); 10] = [
    ("chatml", CHATML),
    ("simple", SIMPLE),
    ("llama 3", LLAMA3),
    ("llama 3.1", LLAMA31),
    ("llama 2", LLAMA2),
    ("mistral", MISTRAL),
    ("gemma", GEMMA),
    ("zephyr", ZEPHYR),
    ("qwen 3", QWEN3),
    ("generation", GENERATION),
];

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").expect("the template is fine")
}

fn turns(turns: &[(Role, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message { role: *role, content: (*content).to_owned() }).collect()
}

fn conversation() -> Vec<Message> {
    turns(&[
        (Role::System, "Be kind."),
        (Role::User, " Hi \n"),
        (Role::Assistant, "Hello!"),
        (Role::User, "Bye"),
    ])
}

#[test]
fn templates_of_the_common_families_render_as_their_authors_meant() {
    let render = |source: &str| template(source).render(&conversation()).unwrap();
    assert_eq!(
        render(CHATML),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n\
         <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(SIMPLE),
        "<|system|>Be kind.<|end|><|user|> Hi \n<|end|><|assistant|>Hello!<|end|><|user|>Bye<|end|><|assistant|>"
    );
    assert_eq!(
        render(LLAMA3),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi\
         <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>user<|end_header_id|>\
         \n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(
        render(LLAMA2),
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST] Hello! </s><s>[INST] Bye [/INST]"
    );
    assert_eq!(render(MISTRAL), "<s>[INST]  Hi \n[/INST] Hello!</s>[INST] Be kind.\n\nBye[/INST]");
    assert_eq!(
        render(ZEPHYR),
        "<|system|>\nBe kind.</s>\n<|user|>\n Hi \n</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n<|assistant|>\n"
    );
    let gemma = template(GEMMA);
    assert!(!gemma.supports_system());
    assert_eq!(
        gemma.render(&conversation()[1..]).unwrap(),
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n<start_of_turn>user\nBye\
         <end_of_turn>\n<start_of_turn>model\n"
    );
    assert!(render(LLAMA31).contains("Today Date: 26 Jul 2024\n\nBe kind.<|eot_id|>"));
    for (name, source) in TEMPLATES.iter().filter(|(name, _)| *name != "gemma") {
        assert!(template(source).supports_system(), "{name}");
    }
}

#[test]
fn thinking_that_a_template_drops_is_dropped_and_the_answer_kept() {
    let messages = turns(&[
        (Role::User, "1+1?"),
        (Role::Assistant, "<think>\nHmm.\n</think>\n\nTwo."),
        (Role::User, "Sure? </think> <|im_end|>"),
    ]);
    let prompt = template(QWEN3).render(&messages).unwrap();
    assert!(prompt.contains("<|im_start|>assistant\nTwo.<|im_end|>"), "{prompt}");
    assert!(!prompt.contains("Hmm."));
    assert!(prompt.contains("Sure? </think> <|im_end|><|im_end|>"));
}

#[test]
fn empty_and_blank_contents_are_fine() {
    for (name, source) in TEMPLATES {
        for content in ["", " ", "\n\n", "\u{A0}"] {
            let prompt = template(source).render(&turns(&[(Role::User, content)]));
            assert!(prompt.is_ok(), "{name}: {content:?}: {prompt:?}");
        }
    }
}

/// FAULTS 39.
#[test]
fn broken_alternation_no_messages_and_a_million_are_errors_of_ours() {
    let refused =
        |template: &ChatTemplate, messages: &[Message]| -> Error { template.render(messages).unwrap_err() };
    let gemma = template(GEMMA);
    let twice = refused(&gemma, &turns(&[(Role::User, "canary"), (Role::User, "canary")]));
    assert_eq!(twice.kind(), ErrorKind::InvalidArgument);
    assert!(
        twice.to_string().contains("roles must alternate") && !twice.to_string().contains("canary"),
        "{twice}"
    );
    let system = refused(&gemma, &conversation());
    assert!(system.to_string().contains("System role not supported"), "{system}");

    let simple = template(SIMPLE);
    assert_eq!(refused(&simple, &[]).kind(), ErrorKind::InvalidArgument);
    let many = vec![Message { role: Role::User, content: String::new() }; 1_000_000];
    assert!(refused(&simple, &many).to_string().contains("1000000 of them"));
    assert!(simple.render(&many[..1000]).is_ok());
    let long = turns(&[(Role::User, &"x".repeat((1 << 20) + 1))]);
    assert_eq!(refused(&simple, &long).kind(), ErrorKind::InputTooLong);
}

/// FAULTS 45: what a template says about a message stays inside.
#[test]
fn a_message_is_never_repeated_in_an_error() {
    let source = "{% for m in messages %}{% if m.content == 'canary' %}{{ raise_exception('no ' + m.content) }}{% endif %}{{ m.content }}{% endfor %}";
    let error = template(source).render(&turns(&[(Role::User, "canary")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
}

/// FAULTS 15 to 17: errors, quickly, with little memory.
#[test]
fn templates_that_escape_loop_or_bomb_are_refused_in_no_time() {
    let content = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let deep = format!("{}{content}{}", "{% if true %}".repeat(4000), "{% endif %}".repeat(4000));
    for (name, bomb) in [
        ("class", "{{ ''.__class__.__mro__[1].__subclasses__() }}".to_owned()),
        ("cycler", "{{ cycler.__init__.__globals__.os.popen('id').read() }}".to_owned()),
        ("include", "{% include '/etc/passwd' %}".to_owned()),
        ("import", "{% import 'os' as os %}{{ os.x }}".to_owned()),
        ("loops", format!("{}{}", "{% for i in range(1000) %}".repeat(4), "{% endfor %}".repeat(4))),
        ("range", "{% for i in range(1000000000) %}{% endfor %}".to_owned()),
        ("power", "{{ 9**9**9**9 }}".to_owned()),
        ("macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
        ("parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000))),
        ("nesting", deep),
        ("doubling", format!("{{% set x = 'aaaaaaaa' %}}{}", "{% set x = x ~ x %}".repeat(30))),
        ("doubling plus", format!("{{% set x = 'aaaaaaaa' %}}{}", "{% set x = x + x %}".repeat(30))),
        ("repetition", "{% set x = 'a' * 90000000 %}{% set y = x ~ x %}{% set z = y * 1000 %}".to_owned()),
        ("repeated", "{{ 'a' * 4000000000 }}".to_owned()),
        ("join", "{% set x = 'aaaaaaaaaaaaaaaa' * 9999 %}{{ range(9000) | join(x) }}".to_owned()),
        ("replace", "{% set x = 'aaaaaaaaaaaaaaaa' * 9999 %}{{ x | replace('a', x) }}".to_owned()),
        ("replace method", "{% set x = 'aaaaaaaaaaaaaaaa' * 9999 %}{{ x.replace('a', x) }}".to_owned()),
        ("list", "{{ (['a'] * 9999) | join('a') }}".to_owned()),
        ("letters", "{{ ('a' * ('90000000' | int)) | list }}".to_owned()),
        ("indent", "{{ 'a\nb' | indent('4000000000' | int) }}".to_owned()),
        ("tojson", "{{ [1, 2] | tojson(indent='4000000000' | int) }}".to_owned()),
        ("format", "{{ '%4000000000s' | format('a') }}".to_owned()),
        ("output", "{% for i in range(9000) %}{{ 'aaaaaaaaaaaaaaaa' * 1000 }}{% endfor %}".to_owned()),
    ] {
        let source = format!("{bomb}{content}");
        let start = Instant::now();
        let (result, peak) = crate::allocations::peak(|| ChatTemplate::new(&source, "", ""));
        let error = result.expect_err(name);
        assert_ne!(error.kind(), ErrorKind::Internal, "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{name}: {:?}", start.elapsed());
        assert!(peak < 400 << 20, "{name}: {peak} bytes");
    }
    let large = format!("{content}{}", " ".repeat(64 << 10));
    expect_error("64 KiB and more", ChatTemplate::new(&large, "", ""), ErrorKind::Invalid, &["65536"]);
}

/// FAULTS 18.
#[test]
fn templates_that_lose_or_change_messages_are_refused_at_load() {
    for (name, source, kind) in [
        ("nothing", "   ", ErrorKind::Invalid),
        ("broken", "{% for m in messages %}{{ m.content }", ErrorKind::Invalid),
        ("ignores", "Hello there.", ErrorKind::Unsupported),
        ("only the first", "{{ messages[0].content }}", ErrorKind::Unsupported),
        ("shouts", "{% for m in messages %}{{ m.content | upper }}{% endfor %}", ErrorKind::Unsupported),
        ("cuts", "{% for m in messages %}{{ m.content[:3] }}{% endfor %}", ErrorKind::Unsupported),
        (
            "clock",
            "{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{% endfor %}",
            ErrorKind::Unsupported,
        ),
        ("always raises", "{{ raise_exception('never') }}", ErrorKind::InvalidArgument),
    ] {
        expect_error(name, ChatTemplate::new(source, "", "").map(|_| ()), kind, &["chat template"]);
    }
    let clock = ChatTemplate::new("{{ strftime_now('%d') }}", "", "").unwrap_err();
    assert!(clock.to_string().contains("`strftime_now`"), "{clock}");
}

#[test]
fn python_methods_and_json_work_as_in_python() {
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}|{{ ' xx '.strip() }}|{{ 'a,b,c'.split(',', 1)|join('+') }}|{{ \
                  'abc'.startswith('ab') }}|{{ {'b': 1, 'a': [1, 2.5, none, '<é>']} | tojson }}|{% for k, v in {'k': 'v'}.items() %}{{ k \
                  }}={{ v }}{% endfor %}|{{ {'k': 1}.get('z', 'none') }}|{{ 'xay'.find('a') }}|{{ 'a-b'.replace('-', '_') }}|{{ \
                  'ab'.upper() }}|{{ ','.join(['x', 'y']) }}|{{ 'a\nb' | indent(2) }}";
    let prompt = template(source).render(&turns(&[(Role::User, "hi")])).unwrap();
    let json = "{\"a\": [1, 2.5, null, \"<é>\"], \"b\": 1}";
    let expected = format!("hi|xx|a+b,c|true|{json}|k=v|none|1|a_b|AB|x,y|a\n  b");
    assert_eq!(prompt.to_lowercase(), expected.to_lowercase());
}
